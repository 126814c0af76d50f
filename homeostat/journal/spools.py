"""The spools of a machine's writers: left by a dead one, or in use by a living one."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from homeostat.errors import Conflict, JournalUnavailable
from homeostat.journal import segments
from homeostat.journal.forget import KEY, Wanted, matching
from homeostat.journal.writer import JournalWriter
from homeostat.records import Task

SOON = timedelta(seconds=20)
REJECTED = "rejected"  # rows that fit no table, kept for a person


def commit_left(
    url: str, spool: Path, model: str, task: Task, *, within: timedelta = SOON
) -> tuple[str, ...]:
    """Commit what dead writers left in their spools; the ids of those that live, and do it
    themselves. Raises JournalUnavailable where rows still wait after `within`: a writer that
    starts meanwhile is kept out of its spool so long."""
    living = []
    for folder in _folders(spool / model):
        if not any(folder.glob("*.arrows")):
            continue
        writer = JournalWriter(
            url=url,
            spool=spool,
            model=model,
            task=task,
            writer_id=folder.name,
            durability="spool",
            commit_every=within,
            commit_bytes=1 << 40,
            clock=lambda: datetime.now(UTC),
            flush_within=within,
        )
        try:
            writer.start()
        except Conflict:
            living.append(folder.name)
            continue
        writer.close()  # which stores what waits, and tries no longer than `within`
        if any(folder.glob("*.arrows")):
            raise JournalUnavailable(
                f"rows wait in {folder}, and were not stored within {within.total_seconds():g} s; "
                "the log says why. Try again when the storage is back"
            )
    return tuple(living)


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


def _folders(parent: Path) -> list[Path]:
    return sorted(each for each in parent.iterdir() if each.is_dir()) if parent.is_dir() else []
