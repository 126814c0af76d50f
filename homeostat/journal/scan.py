"""One column of a whole table, for those who keep the tables in order."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from homeostat.journal.snapshot import open_snapshot
from homeostat.journal.tables import TableRef


def column(table: TableRef, name: str) -> Any:
    """As a single array; empty while no row was ever stored."""
    snapshot = open_snapshot(table)
    if snapshot is None:
        return pa.nulls(0, table.schema.field(name).type)
    return snapshot.read([name])[name].combine_chunks()
