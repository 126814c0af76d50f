"""Rows that are wanted, in segments that wait for the tables or fit none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa

from homeostat.journal.forgetting.forget import KEY, Wanted, matching
from homeostat.journal.spooling import segments
from homeostat.journal.spooling.segments import REJECTED


def holding(spool: Path, model: str, wanted: Wanted) -> tuple[Path, ...]:
    """Segments on their way to the tables with rows that are wanted."""
    found = []
    for path in sorted((spool / model).glob("*/*.arrows")):
        rows = _read(path)
        if rows is not None and rows.filter(_where(rows, wanted)).num_rows:
            found.append(path)
    return tuple(found)


def strip_rejected(spool: Path, model: str, wanted: Wanted) -> int:
    """Take rows out of the segments that were set aside; how many they were."""
    removed = 0
    for path in sorted((spool / model).glob(f"*/{REJECTED}/*.arrows")):
        rows = _read(path)
        if rows is None:
            continue
        kept = rows.filter(~_where(rows, wanted))
        if kept.num_rows == rows.num_rows:
            continue
        removed += rows.num_rows - kept.num_rows
        if kept.num_rows:
            _write(path, kept)
        else:
            path.unlink()
    return removed


def _where(rows: Any, wanted: Wanted) -> Any:
    return matching(wanted, keys=KEY in rows.column_names)


def _read(path: Path) -> Any | None:
    """None for a file that was committed and removed meanwhile, or holds no whole batch."""
    try:
        return segments.read(path)
    except FileNotFoundError:
        return None


def _write(path: Path, rows: Any) -> None:
    partial = path.with_suffix(".part")
    with pa.OSFile(str(partial), "wb") as file, pa.ipc.new_stream(file, rows.schema) as stream:
        stream.write_table(rows)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
