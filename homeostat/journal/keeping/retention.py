"""What is old enough to go: whole days of rows, and files that were replaced.

A day is deleted by its partition, which rewrites nothing. Labels lie by the day they arrived, and
none arrives before its prediction: one that came within the days that stay is kept.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.compute as pc
import pyarrow.fs as pafs

from homeostat.errors import Conflict
from homeostat.journal.delta import storage
from homeostat.journal.delta.files import TableFile, files_in
from homeostat.journal.delta.snapshot import open_snapshot
from homeostat.journal.delta.tables import TableRef, open_table, reaching
from homeostat.journal.keeping.deletion import delete, drop_days, timestamp

CLOCKS = timedelta(days=1)  # a label's day may come before its prediction's, by two clocks
HOLIDAYS = timedelta(days=14)  # without a row, as any project may have them
UNFINISHED = 1  # hours a file without a commit is left alone: its writer may still be at it


@dataclass(frozen=True, kw_only=True)
class Expired:
    """Days of predictions that went, with the labels of that time."""

    days: tuple[str, ...] = ()
    rows: int = 0
    labels: int = 0
    bytes: int = 0  # until the vacuum they stay on the disk


@dataclass(frozen=True, kw_only=True)
class Vacuumed:
    files: int = 0
    bytes: int = 0


def first_kept(
    predictions: Sequence[TableFile],
    labels: Sequence[TableFile],
    *,
    now: datetime,
    keep: timedelta,
    keep_bytes: int | None,
) -> str:
    """The first day that stays: by age, then by size. Today's rows always do."""
    today = _day(now)
    first = _day(now - keep) if keep > timedelta(0) else ""
    if keep_bytes is None:
        return first
    days = sorted({file.day for file in predictions if file.day >= first} | {today})
    for day in days:
        left = sum(file.bytes for file in predictions if file.day >= day)
        left += sum(file.bytes for file in labels if file.day >= _before(day))
        if left <= keep_bytes or day >= today:
            return max(first, day) if day > days[0] else first
    return first


def expire(
    predictions: TableRef,
    labels: TableRef,
    quarantine: TableRef,
    *,
    now: datetime,
    keep: timedelta,
    keep_bytes: int | None = None,
    dry_run: bool = False,
    anyway: bool = False,
) -> Expired:
    """Delete the days before the first that stays. Raises JournalUnavailable, and Conflict for a
    deletion that a wrong clock may ask for, unless it is to be done `anyway`."""
    rows, labelled = files_in(predictions), files_in(labels)
    first = first_kept(rows, labelled, now=now, keep=keep, keep_bytes=keep_bytes)
    if not first:
        return Expired()
    old = [file for file in rows if file.day < first]
    old_labels = [file for file in labelled if file.day < _before(first)]
    if not dry_run:
        if not anyway:
            _refuse_odd(predictions.url, [file.day for file in rows], first, now=now, keep=keep)
        if old:
            drop_days(predictions, first)
        if old_labels:
            drop_days(labels, _before(first))
        _expire_quarantine(quarantine, datetime.fromisoformat(first).replace(tzinfo=UTC))
    return Expired(
        days=tuple(sorted({file.day for file in old})),
        rows=sum(file.rows for file in old),
        labels=sum(file.rows for file in old_labels),
        bytes=sum(file.bytes for file in (*old, *old_labels)),
    )


def clock_is_odd(days: Collection[str], first: str, *, keep: timedelta) -> bool:
    """Whether deleting the days before `first` is what a clock that jumped ahead would do: nothing
    stays of the log, or only what came after a gap longer than `keep` and than holidays."""
    old, kept = [day for day in days if day < first], [day for day in days if day >= first]
    if not old or not kept:
        return bool(old)
    gap = datetime.fromisoformat(min(kept)) - datetime.fromisoformat(max(old))
    return keep > timedelta(0) and gap > max(keep, HOLIDAYS)


def _refuse_odd(
    url: str, days: Collection[str], first: str, *, now: datetime, keep: timedelta
) -> None:
    if clock_is_odd(days, first, keep=keep):
        raise Conflict(
            f"at {now:%F %T} UTC all rows of {url} from {min(days)} to "
            f"{max(day for day in days if day < first)} are due to be deleted at once, and no "
            "older ones would stay: nothing was deleted, since the clock may run ahead. Set the "
            "clock; or, if it is right, run `homeostat journal vacuum --yes`"
        )


def vacuum(table: TableRef, *, keep_deleted: timedelta, dry_run: bool = False) -> Vacuumed:
    """Remove files that were replaced before `keep_deleted` (in whole hours, rounded up), and what
    commits that were cut off left behind. Raises JournalUnavailable."""
    handle = open_table(table)
    if handle is None:
        return Vacuumed()
    hours = math.ceil(keep_deleted / timedelta(hours=1))
    with reaching(table):
        lost = _vacuum(handle, max(hours, UNFINISHED), dry_run=True, full=True)
        replaced = _vacuum(handle, hours, dry_run=True, full=False)
        sizes = _sizes(table, {*lost, *replaced})
        if not dry_run:
            if replaced:
                _vacuum(handle, hours, dry_run=False, full=False)
            if set(lost) - set(replaced):
                _vacuum(handle, max(hours, UNFINISHED), dry_run=False, full=True)
    return Vacuumed(files=len(sizes), bytes=sum(sizes))


def _vacuum(handle: Any, hours: int, *, dry_run: bool, full: bool) -> list[str]:
    found: list[str] = handle.vacuum(
        retention_hours=hours, dry_run=dry_run, full=full, enforce_retention_duration=False
    )
    return found


def _sizes(table: TableRef, paths: set[str]) -> list[int]:
    """Of those that are still there."""
    if not paths:
        return []
    found = storage.filesystem(table.url).get_file_info(sorted(paths))
    return [info.size or 0 for info in found if info.type is pafs.FileType.File]


def _expire_quarantine(table: TableRef, before: datetime) -> None:
    """Rows are put aside after they were predicted: what was decided before the first day that
    stays is about rows that are gone, unless it is a range of time that reaches further."""
    handle = open_table(table)
    if handle is None:
        return
    moment = timestamp(before)
    gone = f"time < {moment}"
    if any(field.name == "end" for field in handle.schema().fields):
        gone += f' AND ("end" IS NULL OR "end" < {moment})'
    snapshot = open_snapshot(table)
    oldest = None if snapshot is None else pc.min(snapshot.read(["time"])["time"]).as_py()
    if oldest is not None and oldest < before:
        delete(table, gone)


def _before(day: str) -> str:
    return (datetime.fromisoformat(day) - CLOCKS).date().isoformat()


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat()
