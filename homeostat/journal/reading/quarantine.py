"""Rows put aside by a decision, under its key: ids, or a range of time; reversible, and nothing of
it is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from homeostat.errors import InputError, JournalUnavailable
from homeostat.journal.delta.bounds import Bound, Clause, exactly
from homeostat.journal.delta.commits import ATTEMPTS
from homeostat.journal.delta.store import Store
from homeostat.journal.delta.tables import TableRef
from homeostat.journal.encoding.arrays import TIME
from homeostat.journal.encoding.schema import microseconds
from homeostat.journal.reading import rows

APP_ID = "quarantine"  # one for all: of two at once, one must read again
WHAT = ("prediction_id", "start", "end", "version")  # either an id, or a range


@dataclass(frozen=True)
class Range:
    start_us: int
    end_us: int  # exclusive
    version: str | None  # None: every version


@dataclass(frozen=True)
class Aside:
    """What stands in quarantine, under any key."""

    ids: Any
    ranges: tuple[Range, ...]

    def mask(self, found: Any) -> NDArray[np.bool_]:
        """Which rows of a table with prediction_id, time and version are put aside."""
        mask = np.zeros(found.num_rows, dtype=bool)
        if len(self.ids):
            mask |= rows.flags(pc.is_in(found["prediction_id"], value_set=self.ids))
        times = rows.integers(found["time"])
        for each in self.ranges:
            inside = (times >= each.start_us) & (times < each.end_us)
            if each.version is not None:
                same = pc.equal(found["version"], each.version).fill_null(False)
                inside &= rows.flags(same)
            mask |= inside
        return mask


NOTHING = Aside(ids=pa.nulls(0, pa.string()), ranges=())


def standing(store: Store, table: TableRef, least: str, most: str) -> Aside:
    """Of ids from `least` to `most` and of all ranges: other ids need not be read."""
    snapshot = store.open(table)
    if snapshot is None:
        return NOTHING
    found = active(snapshot, [(Bound("prediction_id", least, most, or_null=True),)])
    named = found["prediction_id"].is_valid()
    ranges = found.filter(pc.invert(named)).select(["start", "end", "version"])
    starts, ends = rows.integers(ranges["start"]), rows.integers(ranges["end"])
    versions = ranges["version"].to_pylist()
    return Aside(
        ids=rows.combined(found.filter(named)["prediction_id"]),
        ranges=tuple(
            Range(int(start), int(end), version)
            for start, end, version in zip(starts, ends, versions, strict=True)
        ),
    )


def put_ids(
    store: Store, table: TableRef, ids: Sequence[str], reason: str, *, key: str, now: datetime
) -> int:
    """How many of the ids were not in quarantine under this key."""
    unique = pa.array(list(dict.fromkeys(ids)), pa.string())
    return _put(store, table, _entries(ids=unique), reason, key=key, now=now)


def put_range(
    store: Store,
    table: TableRef,
    start: datetime,
    end: datetime,
    version: str | None,
    reason: str,
    *,
    key: str,
    now: datetime,
) -> int:
    """1, or 0 where this very range was in quarantine under this key."""
    if end <= start:
        raise InputError(f"a range ends after it starts, not from {start} to {end}")
    entry = _entries(
        starts=pa.array([start], TIME),
        ends=pa.array([end], TIME),
        versions=pa.array([version], pa.string()),
    )
    return _put(store, table, entry, reason, key=key, now=now)


def release(store: Store, table: TableRef, *, key: str, now: datetime) -> int:
    """How many ids and ranges were in quarantine under this key, and no longer are."""
    for _ in range(ATTEMPTS):
        mine, ordinal = _under(store, table, key)
        if _record(store, table, mine, key=key, now=now, released=True, ordinal=ordinal):
            return int(mine.num_rows)
    raise _too_fast(table)


def _put(
    store: Store, table: TableRef, wanted: Any, reason: str, *, key: str, now: datetime
) -> int:
    for _ in range(ATTEMPTS):
        mine, ordinal = _under(store, table, key)
        new = _not_in(wanted, mine)
        reasons = pa.array([reason] * new.num_rows, pa.string())
        new = new.append_column("reason", reasons)
        if _record(store, table, new, key=key, now=now, released=False, ordinal=ordinal):
            return int(new.num_rows)
    raise _too_fast(table)


def _under(store: Store, table: TableRef, key: str) -> tuple[Any, int]:
    """What stands under a key, and the number of the next decision."""
    snapshot = store.open(table)
    if snapshot is None:
        return table.schema.empty_table(), 0
    found = active(snapshot, [exactly("key", key)])
    return found, snapshot.version_of(APP_ID) + 1


def active(snapshot: Any, within: Sequence[Clause]) -> Any:
    """The newest row of each key and what it names, where that is not released."""
    history = snapshot.read([*WHAT, "key", "reason", "time", "released", "ordinal"], within)
    order = np.argsort(-rows.integers(history["ordinal"]), kind="stable")
    history = history.take(order)
    numbered = history.append_column("at", pa.array(np.arange(len(order))))
    grouped = numbered.group_by(["key", *WHAT], use_threads=False).aggregate([("at", "min")])
    newest = history.take(grouped["at_min"])
    return newest.filter(pc.invert(newest["released"]))


def _not_in(wanted: Any, there: Any) -> Any:
    """What is not there yet; wanted names ids only, or a single range."""
    if wanted["prediction_id"].null_count:
        same = there.select(WHAT).to_pylist()
        return wanted.slice(0, 0) if wanted.to_pylist()[0] in same else wanted
    known = pc.is_in(wanted["prediction_id"], value_set=rows.combined(there["prediction_id"]))
    return wanted.filter(pc.invert(known))


def _entries(*, ids: Any = None, starts: Any = None, ends: Any = None, versions: Any = None) -> Any:
    count = len(ids) if ids is not None else len(starts)
    columns = [
        pa.nulls(count, pa.string()) if ids is None else ids,
        pa.nulls(count, TIME) if starts is None else starts,
        pa.nulls(count, TIME) if ends is None else ends,
        pa.nulls(count, pa.string()) if versions is None else versions,
    ]
    return pa.table(columns, names=list(WHAT))


def _record(
    store: Store,
    table: TableRef,
    entries: Any,
    *,
    key: str,
    now: datetime,
    released: bool,
    ordinal: int,
) -> bool:
    """False when somebody else decided in between: read again."""
    count = entries.num_rows
    if not count:
        return True
    moment = np.full(count, microseconds(now))
    known = {
        "key": pa.array([key] * count, pa.string()),
        "time": pa.array(moment, pa.int64()).cast(TIME),
        "released": pa.array(np.full(count, released)),
        "ordinal": pa.array(np.full(count, ordinal), pa.int64()),
    }
    columns = [
        known[field.name] if field.name in known else entries[field.name] for field in table.schema
    ]
    data = pa.table(columns, schema=table.schema)
    return store.commit(table, data, app_id=APP_ID, version=ordinal)


def _too_fast(table: TableRef) -> JournalUnavailable:
    return JournalUnavailable(f"{table.url}: others were faster {ATTEMPTS} times in a row")
