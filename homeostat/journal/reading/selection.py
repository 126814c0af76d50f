"""Which of the rows read make up a window: pure functions over Arrow columns and positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from homeostat.journal.encoding.sampling import shares_of
from homeostat.journal.reading.request import SHADOW
from homeostat.journal.reading.rows import combined, flags, integers

Positions = NDArray[np.int64]
Flags = NDArray[np.bool_]
DECIDING = ("version", "role", "weight", "recorded")


@dataclass(frozen=True)
class Chosen:
    positions: Positions  # in time order
    weight: float  # how many rows each of them stands for; 1 where every row has its own weight
    left_out: int  # of the rows since the first of them: those that do not hold what is asked


def choose(
    found: Any,
    out: Flags,
    lacking: Flags,
    *,
    thin: bool,
    weight: float | None = None,
    limit: int | None = None,
) -> Chosen:
    """The newest row of each id, without those put aside and those that lack what is asked,
    thinned, the last `limit`.

    What is out is so for good: an older row of the same id does not take its place. Where `thin`,
    rows stand for equally many: the largest weight found, or the one given.
    """
    positions = newest_per_id(found)
    positions = positions[~out[positions]]
    lacking = lacking[positions]
    left, positions = positions[lacking], positions[~lacking]
    if thin:
        weights = weights_of(found)
        if weight is None:
            weight = float(weights.max()) if len(weights) else 1.0
        positions = positions[thinned(found, positions, weights, weight)]
    if limit is not None and len(positions) > limit:
        positions = positions[len(positions) - limit :]
        times = integers(found["time"])
        left = left[times[left] >= times[positions[0]]] if limit else left[:0]
    return Chosen(positions, 1.0 if weight is None else weight, len(left))


def newest_enough(
    weights: NDArray[np.float64], shares: NDArray[np.float64], count: int
) -> tuple[int, float] | None:
    """Of rows, the newest first: how far back so many reach that stand for equally many, and for
    how many that is; None where they are too few. That depends on no row further back."""
    most = np.maximum.accumulate(weights)
    for weight in np.unique(most):
        rated = (weights >= weight) | (shares < 1.0 / weight)
        kept = np.flatnonzero((most <= weight) & rated)
        if len(kept) >= count:
            return int(kept[count - 1]), float(weight)
    return None


def newest_per_id(found: Any) -> Positions:
    """Positions in time order: of rows with one id the newest. Of several of one moment the one
    that comes last by `decided_by`, in whatever order they were read."""
    times = integers(found["time"])
    order = np.argsort(times, kind="stable")
    encoded = row_keys(found).dictionary_encode()
    codes = integers(encoded.indices)
    if len(encoded.dictionary) == len(codes):
        return order
    last = np.full(len(encoded.dictionary), -1, dtype=np.int64)
    last[codes[order]] = np.arange(len(order))
    newest = times[order][last]
    tied = np.flatnonzero(times == newest[codes])
    if len(tied) > len(last):
        tied = tied[np.bincount(codes[tied])[codes[tied]] > 1]
        rank = np.zeros(len(codes), dtype=np.int64)
        rank[tied] = _ranks(found.select(DECIDING).take(pa.array(tied)).to_pylist())
        order = np.lexsort((rank, times))
        last[codes[order]] = np.arange(len(order))
    keep = np.zeros(len(order), dtype=bool)
    keep[last] = True
    positions: Positions = order[keep]
    return positions


def decided_by(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Which of several rows of one id and moment counts: the greatest by these, in this order."""
    return tuple((row[name] is not None, row[name]) for name in DECIDING)


def _ranks(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Their places in the order, equal ones' equal."""
    keys = [decided_by(row) for row in rows]
    places = {key: at for at, key in enumerate(sorted(set(keys)))}
    return [places[key] for key in keys]


def row_keys(found: Any) -> Any:
    """What makes two rows the same: the id. A shadow's answer is another than the one it shadows,
    and than another shadow's."""
    ids = combined(found["prediction_id"])
    shadows = pc.equal(combined(found["role"]), SHADOW).fill_null(False)
    if not pc.any(shadows).as_py():
        return ids
    theirs = pc.binary_join_element_wise(ids, combined(found["version"]), "\0")
    return pc.if_else(shadows, theirs, ids)


def weights_of(found: Any) -> NDArray[np.float64]:
    """Rows from before there were weights stand for themselves."""
    weights = combined(found["weight"].fill_null(1.0))
    result: NDArray[np.float64] = weights.to_numpy(zero_copy_only=False)
    return result


def thinned(
    found: Any, positions: Positions, weights: NDArray[np.float64], weight: float
) -> NDArray[np.bool_]:
    """Which of the positions stay, so that each stands for `weight` rows. Rows were logged by the
    same rule, so those of smaller weight are only thinned further."""
    keep: Flags = weights[positions] == weight
    if not keep.all():
        # of a larger one are only rows that came after the weight was found
        doubtful = np.flatnonzero(weights[positions] < weight)
        ids = combined(found["prediction_id"]).take(pa.array(positions[doubtful]))
        keep[doubtful] = shares_of(ids) < 1.0 / weight
    return keep


def unmatched(ids: Any, known: Any) -> Any:
    """Those of the ids that are not known."""
    return ids.filter(pa.array(~flags(pc.is_in(ids, value_set=known))))
