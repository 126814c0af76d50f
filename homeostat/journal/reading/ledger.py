"""The label ledger: how late labels come, how much of each day has one, when the rest will come.

Rows without a label are not rows that never get one: they are known only up to now. So the delay
is estimated as lifetimes are (Kaplan and Meier): at each delay at which labels came, by the share
of the rows at least that old that were still without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from homeostat.journal.delta.bounds import during, exactly
from homeostat.journal.delta.model_log import ModelLog
from homeostat.journal.delta.snapshot import Snapshot
from homeostat.journal.encoding.sampling import shares_of
from homeostat.journal.encoding.schema import microseconds
from homeostat.journal.reading.label_join import arrived_since, known_since
from homeostat.journal.reading.request import Request
from homeostat.journal.reading.rows import combined, integers, moment
from homeostat.journal.reading.selection import choose

ROWS = 1_000_000  # looked at; of more, a sample
SHARES = (0.1, 0.5, 0.9, 0.99)  # of the labels that ever come
MATURE = 0.9
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class LabelledDay:
    """The predictions of one day (UTC) and how many of them have a label by now."""

    day: str
    rows: int
    labelled: int

    @property
    def share(self) -> float:
        return self.labelled / self.rows if self.rows else 0.0


@dataclass(frozen=True, kw_only=True)
class DelayQuantile:
    share: float  # of the labels that ever come
    delay: timedelta  # within so long after their prediction


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What is known of a label's delay: from its prediction to when it was known here, which is its
    own time or that of its arrival, whichever is later."""

    label: str
    until: datetime  # what is counted was there at this time
    sampled: float  # share of the rows that was looked at; counts are of these
    rows: int
    labelled: int
    days: tuple[LabelledDay, ...]  # oldest first
    ever: float | None  # estimated share of rows that ever get a label; None: none came yet
    delays: tuple[DelayQuantile, ...]
    settled: bool  # nine tenths came in the first half of the time looked at; else more may come
    mature_after: timedelta | None  # nine tenths of the labels that ever come are there then

    def mature_at(self, end: datetime) -> datetime | None:
        """When a window that ends then is mature; not before, where the ledger is not settled."""
        return None if self.mature_after is None else end + self.mature_after


@dataclass(frozen=True)
class Delays:
    """The estimated distribution of the delay: `arrived[i]` of all rows within `after_us[i]`."""

    after_us: NDArray[np.int64]
    arrived: NDArray[np.float64]

    @property
    def ever(self) -> float | None:
        return float(self.arrived[-1]) if len(self.arrived) else None

    def quantile_us(self, share: float) -> int:
        """Of those that ever come, so far as can be known."""
        at = int(np.searchsorted(self.arrived, share * self.arrived[-1] * (1 - 1e-12)))
        return int(self.after_us[min(at, len(self.after_us) - 1)])


def ledger(log: ModelLog, now: datetime, *, days: int, name: str, rows: int) -> Ledger:
    first = now.astimezone(UTC).date() - timedelta(days=days - 1)
    start = datetime.combine(first, time(), UTC)
    predictions = log.rows()
    if predictions is None:
        return summary(_none(), _none(), now=now, name=name, sampled=1.0)
    rate = _rate(predictions, start, rows)
    # rows were logged by the same number of their ids: of these, the rate is that much lower
    below = rate / predictions.largest_weight(start)
    found = _sample(predictions, start, now, below)
    ids = combined(found["prediction_id"])
    labelled = _first_labels(log, ids, start, now, name, below)
    return summary(integers(found["time"]), labelled, now=now, name=name, sampled=rate)


def summary(
    times_us: NDArray[np.int64],
    labelled_us: NDArray[np.int64],
    *,
    now: datetime,
    name: str,
    sampled: float,
) -> Ledger:
    """Of rows in time order and the times of their first labels, -1 where none came yet."""
    has = labelled_us >= 0
    delays = estimated(times_us, labelled_us, microseconds(now))
    oldest = microseconds(now) - int(times_us[0]) if len(times_us) else 0
    known = delays.ever is not None
    mature_us = delays.quantile_us(MATURE) if known else None
    return Ledger(
        label=name,
        until=now,
        sampled=sampled,
        rows=len(times_us),
        labelled=int(has.sum()),
        days=_days(times_us, has),
        ever=delays.ever,
        delays=tuple(
            DelayQuantile(share=share, delay=delays.quantile_us(share) * MICROSECOND)
            for share in (SHARES if known else ())
        ),
        settled=mature_us is not None and mature_us <= oldest / 2,
        mature_after=None if mature_us is None else mature_us * MICROSECOND,
    )


def estimated(times_us: NDArray[np.int64], labelled_us: NDArray[np.int64], now_us: int) -> Delays:
    """Kaplan and Meier's estimate: a label before its prediction counts as one without delay."""
    has = labelled_us >= 0
    seen_for = np.where(has, np.maximum(labelled_us - times_us, 0), now_us - times_us)
    after, came = np.unique(seen_for[has], return_counts=True)
    at_risk = len(seen_for) - np.searchsorted(np.sort(seen_for), after, side="left")
    without = np.cumprod(1.0 - came / at_risk)
    return Delays(after, np.asarray(1.0 - without, dtype=np.float64))


def _none() -> NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64)


def _rate(predictions: Snapshot, start: datetime, most: int) -> float:
    spans = predictions.spans()
    count = sum(span.rows for span in spans if span.most is None or span.most >= start)
    return min(1.0, most / count) if count else 1.0


def _sample(predictions: Snapshot, start: datetime, end: datetime, below: float) -> Any:
    """The newest row of each id in the sample, in time order."""
    request = Request(features=(), quarantined=True)
    where, light = request.row_filter(predictions.schema), request.light(predictions.schema)
    parts = [
        part.filter(pa.array(shares_of(combined(part["prediction_id"])) < below))
        for part in predictions.stream(light, during(start, end), where)
    ]
    found = pa.concat_tables(parts) if parts else predictions.read(light, during(end, end))
    nothing = np.zeros(found.num_rows, dtype=bool)
    chosen = choose(found, nothing, nothing, thin=True)
    return found.select(["prediction_id", "time"]).take(pa.array(chosen.positions))


def _first_labels(
    log: ModelLog, ids: Any, start: datetime, now: datetime, name: str, below: float
) -> NDArray[np.int64]:
    """When the first label of each id was known; -1 for none until now."""
    never = np.iinfo(np.int64).max
    first = np.full(len(ids), never, dtype=np.int64)
    given = log.given_labels()
    if given is None:
        return np.full(len(ids), -1, dtype=np.int64)
    within = [*arrived_since(start), exactly("name", name)]
    parts = []
    for part in given.stream(["prediction_id", "time", "received"], within):
        mine = shares_of(combined(part["prediction_id"])) < below
        parts.append(part if mine.all() else part.filter(pa.array(mine)))
    if parts:
        came = pa.concat_tables(parts)
        places = integers(pc.index_in(combined(came["prediction_id"]), value_set=ids).fill_null(-1))
        known = places >= 0
        np.minimum.at(first, places[known], integers(known_since(came))[known])
    return np.where(first <= microseconds(now), first, -1)


def _days(times_us: NDArray[np.int64], has: NDArray[np.bool_]) -> tuple[LabelledDay, ...]:
    number = times_us // (86_400 * 1_000_000)
    found: Sequence[int] = np.unique(number).tolist()
    return tuple(
        LabelledDay(
            day=moment(day * 86_400 * 1_000_000).date().isoformat(),
            rows=int((number == day).sum()),
            labelled=int(has[number == day].sum()),
        )
        for day in found
    )
