"""The files a table consists of now, from its log alone: nothing of them is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from homeostat.journal.delta.tables import TableRef, open_table, reaching

# What is being done, how much of it is done, and how much there is of it.
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, of: int) -> None:
    """For those who do not want to know."""


@dataclass(frozen=True, kw_only=True)
class TableFile:
    path: str  # below the table's folder
    day: str  # "2026-11-20"; empty where the table has no days
    bytes: int
    rows: int
    written_at: datetime
    start: datetime | None = None  # of its rows, to the millisecond below
    end: datetime | None = None


def files_in(table: TableRef) -> tuple[TableFile, ...]:
    """None for a table that is not there yet. Raises JournalUnavailable."""
    handle = open_table(table)
    if handle is None:
        return ()
    with reaching(table):
        return files_of(table, handle)


def files_of(table: TableRef, handle: Any) -> tuple[TableFile, ...]:
    """Oldest day first, and within it by time."""
    found = pa.table(handle.get_add_actions(flatten=True))
    times = (f"min.{table.time_column}", f"max.{table.time_column}")
    wanted = ("path", "partition.date", "size_bytes", "num_records", "modification_time", *times)
    columns = [
        found[name].to_pylist() if name in found.column_names else [None] * found.num_rows
        for name in wanted
    ]
    files = [
        TableFile(
            path=unquote(path),
            day=day or "",
            bytes=size,
            rows=rows or 0,
            written_at=datetime.fromtimestamp(written / 1000, UTC),
            start=start,
            end=end,
        )
        for path, day, size, rows, written, start, end in zip(*columns, strict=True)
    ]
    return tuple(sorted(files, key=_place))


def _place(file: TableFile) -> tuple[str, float, str]:
    return file.day, file.start.timestamp() if file.start else 0.0, file.path
