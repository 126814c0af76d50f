"""Columns as the log's readers see them: pure functions over Arrow columns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from homeostat.errors import InputError
from homeostat.journal.encoding.schema import EPOCH, INPUT, column_of
from homeostat.records import Task


def feature_columns(table: Any, features: Sequence[str], schema: Any) -> list[Any]:
    """One column a feature: from its own column, or its place in the tensor, or nulls.

    `schema` is the whole table's: a column's type is the same in whatever rows are read.
    """
    if not features:
        return []
    spread = _tensor(table, len(features)) if INPUT in table.schema.names else None
    return [
        _feature(table, feature, None if spread is None else spread[at], schema)
        for at, feature in enumerate(features)
    ]


def label_values(values: Any, task: Task) -> Any:
    """As text for classes; as numbers for regression, null where the text is no number."""
    return values if task is Task.CLASSIFICATION else as_numbers(values)


def as_numbers(texts: Any) -> Any:
    """Null where a text is no number."""
    try:
        return texts.cast(pa.float64())
    except pa.ArrowInvalid:
        return pa.array([_number(text) for text in texts.to_pylist()], pa.float64())


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


def moment(microseconds: Any) -> datetime:
    return EPOCH + timedelta(microseconds=int(microseconds))


def aware(name: str, time: datetime) -> datetime:
    """A time as it is given; InputError for one that does not say where on earth it is meant."""
    if time.utcoffset() is None:
        raise InputError(
            f"{name} = {time.isoformat()} has no time zone: say which, as in "
            "datetime.now(UTC), or .astimezone() for the local one"
        )
    return time


def _feature(table: Any, feature: str, element: Any | None, schema: Any) -> Any:
    name, rows = column_of(feature), table.num_rows
    if name in table.schema.names:
        own = table[name]
        if element is None or not own.null_count:
            return own
        return pc.coalesce(own, element.cast(own.type))
    if element is not None:
        return element
    return pa.nulls(rows, pa.float32() if INPUT in schema.names else pa.float64())


def _tensor(table: Any, width: int) -> list[Any] | None:
    """The tensor's elements as columns; null in rows of another shape, None where all are."""
    lists = combined(table[INPUT])
    lengths = pc.list_value_length(lists).fill_null(-1).to_numpy(zero_copy_only=False)
    fits = lengths == width
    if not fits.any():
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
