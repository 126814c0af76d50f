"""What the log needs from time to time: old rows deleted, small files put together, the rest swept.

Each step leaves the tables right, so that a kill between or within them costs only time. Safe
beside writers, readers and another upkeep.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from homeostat.errors import Conflict, HomeostatError, JournalUnavailable
from homeostat.jobs import UpkeepResult
from homeostat.journal.delta import table_log, tables
from homeostat.journal.delta.files import Progress, silent
from homeostat.journal.keeping import compaction, retention
from homeostat.journal.keeping.stats import stats
from homeostat.records import Task
from homeostat.settings_of_serving import JournalSettings

logger = logging.getLogger(__name__)


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
    """All of it, for one model; `since` is when it was done last.

    Raises JournalUnavailable, or Conflict where days would go that should perhaps stay (`expire`):
    after all that could be done was done.
    """
    began = time.perf_counter()
    found = tables.tables_of(url, model, task)
    troubles: list[HomeostatError] = []
    done: dict[str, compaction.Compacted] = {}
    swept: list[retention.Vacuumed] = []
    expired = retention.Expired()

    def vacuum(table: tables.TableRef) -> None:
        swept.append(retention.vacuum(table, keep_deleted=keeping.keep_deleted))

    # What gives room comes first, what takes some later; none keeps another from being done.
    for table in found.values():
        with _noted(troubles):
            vacuum(table)
    for table in found.values():
        with _noted(troubles):
            table_log.settle(table, keep_deleted=keeping.keep_deleted)
    with _noted(troubles):
        expired = expire(found, keeping, now=now)
    for name, table in found.items():
        with _noted(troubles):
            done[name] = compaction.compact(table, now=now, since=since, progress=progress)
    for table in found.values():
        with _noted(troubles):
            vacuum(table)
            table_log.tidy_log(table)
    _tell(troubles)
    after = stats(url, model, task)
    return UpkeepResult(
        expired_days=expired.days,
        expired_rows=expired.rows,
        files_replaced=sum(each.replaced for each in done.values()),
        files_written=sum(each.written for each in done.values()),
        files_removed=sum(each.files for each in swept),
        bytes_removed=sum(each.bytes for each in swept),
        rows=after.rows,
        files=after.files,
        bytes=after.table_bytes,
        seconds=time.perf_counter() - began,
    )


@contextmanager
def _noted(troubles: list[HomeostatError]) -> Iterator[None]:
    try:
        yield
    except (JournalUnavailable, Conflict) as trouble:
        logger.error("One step of the upkeep failed: %s", trouble)
        troubles.append(trouble)


def _tell(troubles: list[HomeostatError]) -> None:
    told = list(dict.fromkeys(map(str, troubles)))
    if len(told) == 1:
        raise troubles[0]
    if told:
        raise JournalUnavailable("; ".join(told))


def expire(
    found: dict[str, tables.TableRef],
    keeping: Keeping,
    *,
    now: datetime,
    dry_run: bool = False,
    anyway: bool = False,
) -> retention.Expired:
    """Delete the days that are too old or too many. Raises JournalUnavailable, and Conflict where
    these are all but a few new ones, as with a clock that runs ahead, unless it is to be done
    `anyway`."""
    return retention.expire(
        found["predictions"],
        found["labels"],
        found["quarantine"],
        now=now,
        keep=keeping.keep,
        keep_bytes=keeping.keep_bytes,
        dry_run=dry_run,
        anyway=anyway,
    )
