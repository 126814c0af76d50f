"""Small files become large ones, so that a day of commits reads like one.

Files are put together in the order of their commits. Rows of one moment therefore stay together,
and a reader who wants an hour skips nearly all row groups by their times. Only where a day came in
badly out of order (a writer whose storage was away for hours) it is sorted by time, once it is
over. Appends and readers go on: replaced files stay until the vacuum, and a commit of the writer
does not touch them. Killed anywhere, the table holds either the old files or the new ones.
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

from homeostat.journal.commits import sync_commits
from homeostat.journal.files import Progress, TableFile, files_in, silent
from homeostat.journal.tables import TableRef, open_table, reaching

logger = logging.getLogger(__name__)

TARGET = 128_000_000  # bytes of a file; with it goes the memory that putting together takes
FEW = 8  # so many small files of a day that still grows are left alone
OVER_AFTER = timedelta(hours=1)  # rows of a day may be committed so long after its end
HOUR = 3600.0
DISORDER = 2.0  # times what an hour's read would touch, were the day sorted
SORTED_MOST = 4_000_000_000  # bytes: sorting spills to the temporary folder, and takes its time
SORT_MEMORY = 512_000_000
COMMIT_EVERY = timedelta(minutes=1)  # of a long compaction: killed, it loses no more
ATTEMPTS = 3  # where somebody deleted rows of the same files meanwhile

# Row groups are what a reader skips: small enough for an hour, large enough to compress.
WRITTEN = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=32_768)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Days, oldest first; "" is all of a table without days."""

    merge: tuple[str, ...] = ()
    sort: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What a compaction did: files that were replaced, and those written in their place."""

    replaced: int = 0
    written: int = 0
    merged_days: tuple[str, ...] = ()
    sorted_days: tuple[str, ...] = ()


def compact(
    table: TableRef,
    time_column: str,
    *,
    now: datetime,
    progress: Progress = silent,
    target: int = TARGET,
) -> Compacted:
    """Put a table's small files together where that is worth it. Raises JournalUnavailable."""
    chosen = _planned(table, time_column, now, target)
    replaced = written = 0
    merged, ordered = [], []
    for done, day in enumerate(chosen.merge):
        progress(f"putting together {_named(day)}", done, len(chosen.merge))
        was, became = _rewrite(table, day, by_time=None, target=target)
        replaced, written = replaced + was, written + became
        merged += [day] if was else []
    if merged:  # larger files overlap less
        chosen = _planned(table, time_column, now, target)
    for done, day in enumerate(chosen.sort):
        progress(f"sorting {_named(day)}", done, len(chosen.sort))
        was, became = _rewrite(table, day, by_time=time_column, target=target)
        replaced, written = replaced + was, written + became
        ordered += [day] if was else []
    return Compacted(
        replaced=replaced,
        written=written,
        merged_days=tuple(merged),
        sorted_days=tuple(ordered),
    )


def plan(files: Sequence[TableFile], *, now: datetime, target: int = TARGET) -> Plan:
    """What is worth doing: a function of the files alone, so that nothing has to be remembered."""
    over = (now - OVER_AFTER).astimezone(UTC).date().isoformat()
    merge, sort = [], []
    for day, group in groupby(sorted(files, key=lambda file: file.day), lambda file: file.day):
        mine = list(group)
        small = sum(file.bytes < target // 2 for file in mine)
        finished = "" < day < over
        if small >= (2 if finished else FEW):
            merge.append(day)
        if finished and disorder(mine) > DISORDER and sum(f.bytes for f in mine) <= SORTED_MOST:
            sort.append(day)
    return Plan(merge=tuple(merge), sort=tuple(sort))


def disorder(files: Sequence[TableFile]) -> float:
    """How many times more an hour's read touches than if the rows lay in time order."""
    timed = [
        (file.bytes, file.start.timestamp(), file.end.timestamp())
        for file in files
        if file.start is not None and file.end is not None
    ]
    if len(timed) < 2:
        return 1.0
    whole = max(end for _, _, end in timed) - min(start for _, start, _ in timed)
    touched = sum(size * (end - start + HOUR) for size, start, end in timed)
    ideal = sum(size for size, _, _ in timed) * (whole / len(timed) + HOUR)
    return touched / ideal


def _planned(table: TableRef, time_column: str, now: datetime, target: int) -> Plan:
    return plan(files_in(table, time_column), now=now, target=target)


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
            if table.local is not None and handle.version() > before:
                sync_commits(table.local, before + 1, handle.version())
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
