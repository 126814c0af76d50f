"""What the log needs from time to time: old rows deleted, small files put together, the rest swept.

Each step leaves the tables right, so that a kill between or within them costs only time. Safe
beside writers, readers and another upkeep.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from homeostat.jobs import UpkeepResult
from homeostat.journal import compaction, retention, table_log, tables
from homeostat.journal.files import Progress, silent
from homeostat.journal.stats import stats
from homeostat.records import Task
from homeostat.settings import JournalSettings

TIME_COLUMNS = {"predictions": "time", "labels": "received", "quarantine": "time"}


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Settings journal.keep, keep_bytes and keep_deleted."""

    keep: timedelta
    keep_bytes: int | None
    keep_deleted: timedelta


def keeping_of(settings: JournalSettings) -> Keeping:
    return Keeping(
        keep=settings.keep, keep_bytes=settings.keep_bytes, keep_deleted=settings.keep_deleted
    )


def tables_of(url: str, model: str, task: Task) -> dict[str, tables.TableRef]:
    """By name."""
    return {
        "predictions": tables.predictions(url, model, task),
        "labels": tables.labels(url, model),
        "quarantine": tables.quarantine(url, model),
    }


def upkeep(
    url: str,
    model: str,
    task: Task,
    keeping: Keeping,
    *,
    now: datetime,
    since: datetime | None = None,
    progress: Progress = silent,
) -> UpkeepResult:
    """All of it, for one model; `since` is when it was done last. Raises JournalUnavailable."""
    began = time.perf_counter()
    found = tables_of(url, model, task)
    for table in found.values():
        table_log.settle(table, keep_deleted=keeping.keep_deleted)
    expired = expire(found, keeping, now=now)
    replaced = written = swept = swept_bytes = 0
    for name, table in found.items():
        done = compaction.compact(
            table, TIME_COLUMNS[name], now=now, since=since, progress=progress
        )
        vacuumed = retention.vacuum(table, keep_deleted=keeping.keep_deleted)
        table_log.tidy_log(table)
        replaced, written = replaced + done.replaced, written + done.written
        swept, swept_bytes = swept + vacuumed.files, swept_bytes + vacuumed.bytes
    after = stats(url, model, task)
    return UpkeepResult(
        expired_days=expired.days,
        expired_rows=expired.rows,
        files_replaced=replaced,
        files_written=written,
        files_removed=swept,
        bytes_removed=swept_bytes,
        rows=after.rows,
        files=after.files,
        bytes=after.table_bytes,
        seconds=time.perf_counter() - began,
    )


def expire(
    found: dict[str, tables.TableRef], keeping: Keeping, *, now: datetime, dry_run: bool = False
) -> retention.Expired:
    """Delete the days that are too old or too many."""
    return retention.expire(
        found["predictions"],
        found["labels"],
        found["quarantine"],
        now=now,
        keep=keeping.keep,
        keep_bytes=keeping.keep_bytes,
        dry_run=dry_run,
    )
