"""Several rows of one id and one moment that differ in nothing but what was asked and answered: the
same one counts whoever reads, in whatever order the files are."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from homeostat.journal.delta.bounds import Bound
from homeostat.journal.delta.model_log import text_range
from homeostat.journal.delta.snapshot import Snapshot
from homeostat.journal.reading.request import Request
from homeostat.journal.reading.rows import combined, integers, moment
from homeostat.journal.reading.selection import decided_by, row_keys

Place = tuple[str, int]  # what makes two rows the same, and their moment


def settled(found: Any, predictions: Snapshot | None, request: Request) -> Any:
    """Rows with one in place of several of one id and moment: the greatest by what decides, then by
    all its columns as text. They are read once more for it, whole: it hardly ever happens."""
    tied = _tied(found)
    if predictions is None or not len(tied):
        return found
    doubtful = found.take(pa.array(tied))
    ids = combined(doubtful["prediction_id"]).unique()
    times = integers(doubtful["time"])
    within = [
        (Bound("time", moment(times.min()), moment(times.max())),),
        (Bound("prediction_id", *text_range(ids)),),
    ]
    where, schema = pc.field("prediction_id").isin(ids), predictions.schema
    more = request.row_filter(schema)
    names = list(dict.fromkeys([*schema.names, *found.column_names]))
    whole = predictions.read(names, within, where if more is None else where & more)
    whole = request.sliced(whole, schema)
    winners = _winners(whole, set(_places(doubtful)))
    rest = np.setdiff1d(np.arange(found.num_rows), tied)
    chosen = whole.take(pa.array(winners, pa.int64())).select(found.column_names)
    return pa.concat_tables([found.take(pa.array(rest)), chosen])


def _tied(found: Any) -> NDArray[np.int64]:
    """Positions of rows that share id and moment with another."""
    encoded = row_keys(found).dictionary_encode()
    if len(encoded.dictionary) == found.num_rows:
        return np.zeros(0, dtype=np.int64)
    codes, times = integers(encoded.indices), integers(found["time"])
    order = np.lexsort((times, codes))
    same = (np.diff(codes[order]) == 0) & (np.diff(times[order]) == 0)
    either = np.append(same, False) | np.insert(same, 0, False)
    positions: NDArray[np.int64] = np.sort(order[either])
    return positions


def _winners(whole: Any, places: set[Place]) -> list[int]:
    best: dict[Place, tuple[Any, int]] = {}
    for at, (place, row) in enumerate(zip(_places(whole), whole.to_pylist(), strict=True)):
        if place not in places:
            continue
        rank = (decided_by(row), json.dumps(row, sort_keys=True, default=str))
        if place not in best or best[place][0] < rank:
            best[place] = (rank, at)
    return sorted(at for _, at in best.values())


def _places(found: Any) -> list[Place]:
    return list(zip(row_keys(found).to_pylist(), integers(found["time"]).tolist(), strict=True))
