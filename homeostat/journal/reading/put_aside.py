"""What stands in quarantine, decision by decision: for those who may release it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from homeostat.journal.delta.store import Store
from homeostat.journal.delta.tables import TableRef
from homeostat.journal.reading.quarantine import active


@dataclass(frozen=True, kw_only=True)
class TimeRange:
    """Rows with start <= time < end."""

    start: datetime
    end: datetime
    version: str | None  # None: of every version


@dataclass(frozen=True, kw_only=True)
class PutAside:
    """What stands under one key; of several reasons given under it, the newest."""

    key: str
    reason: str
    time: datetime  # of the newest decision
    ids: int
    ranges: tuple[TimeRange, ...]


def put_aside(store: Store, table: TableRef) -> tuple[PutAside, ...]:
    """Newest decision first."""
    snapshot = store.open(table)
    if snapshot is None:
        return ()
    entries = active(snapshot, ()).to_pylist()
    by_key = groupby(sorted(entries, key=lambda entry: entry["key"]), lambda entry: entry["key"])
    found = [_decided(key, list(mine)) for key, mine in by_key]
    return tuple(sorted(found, key=lambda each: each.time, reverse=True))


def _decided(key: str, entries: list[dict[str, Any]]) -> PutAside:
    newest = max(entries, key=lambda entry: int(entry["ordinal"]))
    ranges = [
        TimeRange(start=entry["start"], end=entry["end"], version=entry["version"])
        for entry in entries
        if entry["prediction_id"] is None
    ]
    return PutAside(
        key=key,
        reason=newest["reason"],
        time=newest["time"],
        ids=len(entries) - len(ranges),
        ranges=tuple(sorted(ranges, key=lambda each: each.start)),
    )
