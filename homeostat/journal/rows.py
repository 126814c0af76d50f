"""Which rows of the tables count: pure functions over Arrow columns and numpy positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from homeostat.errors import InputError
from homeostat.journal.encoding import INPUT, column_of
from homeostat.records import Task

Positions = NDArray[np.int64]


def newest_per_id(table: Any, *, hidden: Any | None, limit: int | None) -> Positions:
    """Positions in time order: the newest row of each id, without hidden ids, the last `limit`."""
    ids = combined(table["prediction_id"])
    order = np.argsort(integers(table["time"]), kind="stable")
    encoded = ids.dictionary_encode()
    codes = integers(encoded.indices)
    last = np.full(len(encoded.dictionary), -1, dtype=np.int64)
    last[codes[order]] = np.arange(len(order))
    keep = np.zeros(len(order), dtype=bool)
    keep[last] = True
    if hidden is not None and len(hidden):
        keep &= ~flags(pc.is_in(ids, value_set=hidden))[order]
    positions: Positions = order[keep]
    return positions if limit is None else positions[max(len(positions) - limit, 0) :]


def newest_label(ids: Any, labels: Any) -> Any:
    """For each id the position of its newest label, by time, then arrival; null where none."""
    codes = integers(pc.index_in(combined(labels["prediction_id"]), value_set=ids).fill_null(-1))
    mine = codes >= 0
    order = np.lexsort(tuple(integers(labels[name]) for name in ("ordinal", "received", "time")))
    order = order[mine[order]]
    newest = np.full(len(ids), -1, dtype=np.int64)
    newest[codes[order]] = order
    return pa.array(newest, mask=newest < 0)


def active(quarantine: Any) -> Any:
    """The newest row of each key and id that is not released."""
    order = np.argsort(-integers(quarantine["ordinal"]), kind="stable")
    history = quarantine.take(order)
    history = history.append_column("at", pa.array(np.arange(len(order))))
    first = history.group_by(["key", "prediction_id"], use_threads=False).aggregate([("at", "min")])
    newest = history.take(first["at_min"])
    return newest.filter(pc.invert(newest["released"]))


def label_values(labels: Any, positions: Any, task: Task) -> Any:
    """As text for classes; as numbers for regression, null where the text is no number."""
    values = labels["value"].take(positions)
    if task is Task.CLASSIFICATION:
        return values
    try:
        return values.cast(pa.float64())
    except pa.ArrowInvalid:
        return pa.array([_number(value) for value in values.to_pylist()], pa.float64())


def feature_columns(table: Any, features: Sequence[str]) -> list[Any]:
    """One column a feature: from its own column, or its place in the tensor, or nulls."""
    spread = _tensor(table, len(features)) if INPUT in table.schema.names else None
    columns = []
    for at, feature in enumerate(features):
        name = column_of(feature)
        own = table[name] if name in table.schema.names else None
        other = None if spread is None else spread[at]
        if own is not None and other is not None and own.null_count:
            own = pc.coalesce(own, other.cast(own.type))
        columns.append(next((c for c in (own, other) if c is not None), None))
    rows = table.num_rows
    return [pa.nulls(rows, pa.float64()) if column is None else column for column in columns]


def integers(column: Any) -> NDArray[np.int64]:
    """The numbers behind times, counters and codes."""
    column = combined(column)
    if pa.types.is_timestamp(column.type):
        column = column.view(pa.int64())
    result: NDArray[np.int64] = column.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    return result


def flags(column: Any) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = combined(column).to_numpy(zero_copy_only=False).astype(bool)
    return result


def combined(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _tensor(table: Any, width: int) -> list[Any] | None:
    """The tensor's elements as columns; null in rows of another shape."""
    lists = combined(table[INPUT])
    lengths = pc.list_value_length(lists).fill_null(-1).to_numpy(zero_copy_only=False)
    fits = lengths == width
    if not fits.any():
        seen = sorted(set(lengths.tolist()) - {-1})
        if seen:
            raise InputError(
                f"the log's rows have {seen} elements, {width} features were asked for: "
                "name every element of the tensor, in its order"
            )
        return None
    matrix = np.full((width, len(lists)), np.nan, dtype=np.float32)
    chosen = lists if fits.all() else lists.filter(pa.array(fits))
    matrix[:, fits] = chosen.flatten().to_numpy(zero_copy_only=False).reshape(-1, width).T
    missing = None if fits.all() else ~fits
    return [pa.array(row, pa.float32(), mask=missing) for row in matrix]


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
