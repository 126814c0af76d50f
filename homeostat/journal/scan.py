"""Reading committed rows of one table, with only the files and columns that are needed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from homeostat.journal import storage
from homeostat.journal.encoding import EPOCH
from homeostat.journal.tables import TableRef, open_table, reaching


def scan(
    table: TableRef,
    handle: Any,
    columns: Sequence[str],
    *,
    where: Any | None = None,
    files: str | None = None,
) -> Any:
    """Rows for which `where` holds, of files whose partition may satisfy `files` (SQL)."""
    dataset = handle.to_pyarrow_dataset(
        filesystem=storage.filesystem(table.url), file_pruning_predicate=files
    )
    there = [column for column in columns if column in dataset.schema.names]
    return dataset.to_table(columns=there, filter=where)


def column(table: TableRef, name: str, where: Any | None = None) -> Any:
    """One column of all committed rows as a single array."""
    handle = open_table(table)
    if handle is None:
        return pa.nulls(0, table.schema.field(name).type)
    with reaching(table):
        return scan(table, handle, [name], where=where)[name].combine_chunks()


def moment(microseconds: Any) -> datetime:
    return EPOCH + timedelta(microseconds=int(microseconds))
