"""How large the log is, how far it reaches, and who writes to it: from the tables' logs alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from homeostat.journal.delta import tables
from homeostat.journal.delta.files import TableFile, files_in
from homeostat.journal.delta.writers import WriterState, writers
from homeostat.journal.keeping.retention import Vacuumed, vacuum
from homeostat.records import Task


@dataclass(frozen=True, kw_only=True)
class Day:
    day: str
    rows: int
    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Stats:
    model: str
    rows: int
    files: int
    bytes: int  # of the predictions; the other two tables' are below
    labels: int
    label_bytes: int
    quarantine_bytes: int
    replaced: Vacuumed  # files that nothing reads any more, until the vacuum
    oldest: datetime | None
    newest: datetime | None
    days: tuple[Day, ...]
    writers: tuple[WriterState, ...]

    @property
    def table_bytes(self) -> int:
        return self.bytes + self.label_bytes + self.quarantine_bytes


def stats(url: str, model: str, task: Task) -> Stats:
    """Raises JournalUnavailable."""
    found = tables.tables_of(url, model, task)
    rows, labels, quarantine = map(files_in, found.values())
    table = found["predictions"]
    starts = [file.start for file in rows if file.start is not None]
    ends = [file.end for file in rows if file.end is not None]
    return Stats(
        model=model,
        rows=sum(file.rows for file in rows),
        files=len(rows),
        bytes=_bytes(rows),
        labels=sum(file.rows for file in labels),
        label_bytes=_bytes(labels),
        quarantine_bytes=_bytes(quarantine),
        replaced=vacuum(table, keep_deleted=timedelta(0), dry_run=True),
        oldest=min(starts, default=None),
        newest=max(ends, default=None),
        days=by_day(rows),
        writers=writers(table),
    )


def by_day(files: Sequence[TableFile]) -> tuple[Day, ...]:
    """Oldest first."""
    found = []
    for day, group in groupby(sorted(files, key=lambda file: file.day), lambda file: file.day):
        mine = list(group)
        found.append(
            Day(day=day, rows=sum(f.rows for f in mine), files=len(mine), bytes=_bytes(mine))
        )
    return tuple(found)


def last_whole_day(days: Sequence[Day], now: datetime) -> Day | None:
    """What a day takes, as far as the log can tell: the newest that is over."""
    today = now.astimezone(UTC).date().isoformat()
    return max((day for day in days if day.day < today), key=lambda day: day.day, default=None)


def _bytes(files: Sequence[TableFile]) -> int:
    return sum(file.bytes for file in files)
