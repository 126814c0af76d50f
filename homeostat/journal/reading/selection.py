"""Which of the rows read make up a window: pure functions over Arrow columns and positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from homeostat.journal.encoding.sampling import shares_of
from homeostat.journal.reading.quarantine import Aside
from homeostat.journal.reading.request import SHADOW
from homeostat.journal.reading.rows import combined, flags, integers

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Chosen:
    positions: Positions  # in time order
    weight: float  # how many rows each of them stands for; 1 where every row has its own weight


def choose(
    found: Any,
    aside: Aside,
    *,
    thin: bool,
    weight: float | None = None,
    limit: int | None = None,
) -> Chosen:
    """The newest row of each id, without what is put aside, thinned, the last `limit`.

    What is put aside is so for good: an older row of the same id does not take its place. Where
    `thin`, rows stand for equally many: the largest weight found, or the one given.
    """
    positions = newest_per_id(found)
    positions = positions[~aside.mask(found)[positions]]
    if thin:
        weights = weights_of(found)
        if weight is None:
            weight = float(weights.max()) if len(weights) else 1.0
        positions = positions[thinned(found, positions, weights, weight)]
    if limit is not None:
        positions = positions[max(len(positions) - limit, 0) :]
    return Chosen(positions, 1.0 if weight is None else weight)


def newest_per_id(found: Any) -> Positions:
    """Positions in time order: of rows with one id the newest, and of one moment's the last."""
    order = np.argsort(integers(found["time"]), kind="stable")
    encoded = row_keys(found).dictionary_encode()
    codes = integers(encoded.indices)
    last = np.full(len(encoded.dictionary), -1, dtype=np.int64)
    last[codes[order]] = np.arange(len(order))
    keep = np.zeros(len(order), dtype=bool)
    keep[last] = True
    positions: Positions = order[keep]
    return positions


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
    keep = weights[positions] >= weight
    if not keep.all():
        doubtful = np.flatnonzero(~keep)
        ids = combined(found["prediction_id"]).take(pa.array(positions[doubtful]))
        keep[doubtful] = shares_of(ids) < 1.0 / weight
    return keep


def unmatched(ids: Any, known: Any) -> Any:
    """Those of the ids that are not known."""
    return ids.filter(pa.array(~flags(pc.is_in(ids, value_set=known))))
