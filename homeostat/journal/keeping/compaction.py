"""Small files become large ones, so that a day of commits reads like one.

The files of a day are put together in the order of their commits, more or less: several are read at
once. A day that is over is therefore sorted by time, once, where that is worth it: a reader who
wants an hour skips all other row groups by their times. Appends and readers go on: replaced files
stay until the vacuum, and no commit of a writer touches them. Killed anywhere, the table holds
either the old files or the new ones.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from deltalake import WriterProperties
from deltalake.exceptions import CommitFailedError, DeltaError

from homeostat.journal.delta.files import Progress, TableFile, files_in, silent
from homeostat.journal.delta.row_groups import disorder, spans
from homeostat.journal.delta.tables import TableRef, open_table, reaching, sync_since
from homeostat.journal.encoding.schema import EPOCH

logger = logging.getLogger(__name__)

TARGET = 128_000_000  # bytes of a file; with it goes the memory that putting together takes
FEW = 8  # so many small files of a day that still grows are left alone
OVER_AFTER = timedelta(hours=1)  # rows of a day may be committed so long after its end
DISORDER = 2.0  # times what an hour's read would touch, were the day sorted
SORTED_MOST = 4_000_000_000  # bytes: sorting spills to the temporary folder, and takes its time
SORT_MEMORY = 512_000_000
MARGIN = timedelta(days=2)  # a day that ended since then, by clocks that differ
COMMIT_EVERY = timedelta(minutes=1)  # of a long compaction: killed, it loses no more
ATTEMPTS = 3  # where somebody deleted rows of the same files meanwhile

# Row groups are what a reader skips: small enough for an hour, large enough to compress.
WRITTEN = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=32_768)


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What a compaction did: files that were replaced, and those written in their place."""

    replaced: int = 0
    written: int = 0
    merged_days: tuple[str, ...] = ()
    sorted_days: tuple[str, ...] = ()


def compact(
    table: TableRef,
    *,
    now: datetime,
    since: datetime | None = None,
    progress: Progress = silent,
    target: int = TARGET,
) -> Compacted:
    """Put a table's small files together where that is worth it. Raises JournalUnavailable.

    `since` is when this was done last: what was in order then, and is as it was, is not looked at.
    """
    chosen = plan(files_in(table), now=now, target=target)
    replaced = written = 0
    merged, ordered = [], []
    for done, day in enumerate(chosen):
        progress(f"putting together {_named(day)}", done, len(chosen))
        was, became = _rewrite(table, day, by_time=None, target=target)
        replaced, written = replaced + was, written + became
        merged += [day] if was else []
    days = _disorderly(table, now=now, since=since)
    for done, day in enumerate(days):
        progress(f"sorting {_named(day)}", done, len(days))
        was, became = _rewrite(table, day, by_time=table.time_column, target=target)
        replaced, written = replaced + was, written + became
        ordered += [day] if was else []
    return Compacted(
        replaced=replaced,
        written=written,
        merged_days=tuple(merged),
        sorted_days=tuple(ordered),
    )


def plan(files: Sequence[TableFile], *, now: datetime, target: int = TARGET) -> tuple[str, ...]:
    """Days whose small files are worth putting together, oldest first: a function of the files
    alone, so that nothing has to be remembered. "" is all of a table without days."""
    over = _over(now)
    return tuple(
        day
        for day, mine in _by_day(files)
        if sum(file.bytes < target // 2 for file in mine) >= (2 if "" < day < over else FEW)
    )


def _disorderly(table: TableRef, *, now: datetime, since: datetime | None) -> tuple[str, ...]:
    """Days that are over and not in the order of time, as far as they may have changed."""
    horizon = EPOCH if since is None else since - MARGIN
    found = []
    for day, mine in _by_day(files_in(table)):
        recent = day >= _day(horizon) or any(file.written_at >= horizon for file in mine)
        if not ("" < day < _over(now) and recent):
            continue
        if sum(file.bytes for file in mine) > SORTED_MOST:
            continue
        if disorder(spans(table, [file.path for file in mine])) > DISORDER:
            found.append(day)
    return tuple(found)


def _by_day(files: Sequence[TableFile]) -> list[tuple[str, list[TableFile]]]:
    ordered = sorted(files, key=lambda file: file.day)
    return [(day, list(group)) for day, group in groupby(ordered, lambda file: file.day)]


def _over(now: datetime) -> str:
    """The first day that may still get rows."""
    return _day(now - OVER_AFTER)


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat()


def _rewrite(table: TableRef, day: str, *, by_time: str | None, target: int) -> tuple[int, int]:
    """How many files were replaced, and by how many; none where it had to be given up."""
    for _ in range(ATTEMPTS):
        with reaching(table):
            handle = open_table(table)
            if handle is None:
                return 0, 0
            before = handle.version()
            try:
                metrics = _optimize(handle, day, by_time, target)
            except CommitFailedError as problem:
                logger.info("%s, %s: begun again: %s", table.url, _named(day), problem)
                continue
            except DeltaError as problem:
                if by_time is None:
                    raise
                # Too little temporary space, mostly: the day reads more slowly, no more than that.
                logger.warning("%s, %s: not sorted: %s", table.url, _named(day), problem)
                return 0, 0
            sync_since(table, handle, before)
            return int(metrics["numFilesRemoved"]), int(metrics["numFilesAdded"])
    return 0, 0


def _optimize(handle: Any, day: str, by_time: str | None, target: int) -> dict[str, Any]:
    given: dict[str, Any] = {
        "partition_filters": [("date", "=", day)] if day else None,
        "target_size": target,
        "max_concurrent_tasks": 1,  # one file at a time: memory stays the same, however many
        "writer_properties": WRITTEN,
    }
    if by_time is None:
        found = handle.optimize.compact(min_commit_interval=COMMIT_EVERY, **given)
    else:
        found = handle.optimize.z_order([by_time], max_spill_size=SORT_MEMORY, **given)
    metrics: dict[str, Any] = found
    return metrics


def _named(day: str) -> str:
    return day or "all rows"
