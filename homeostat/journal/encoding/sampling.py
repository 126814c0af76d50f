"""Which rows are logged, by their ids alone: the same id is always in, or always out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The finalizer of MurmurHash3 and a constant of SplitMix64. Never change them: which rows a table
# holds, and which of them a reader keeps, must agree for as long as there are tables.
FIRST, SECOND = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
STEP = np.uint64(0x9E3779B97F4A7C15)
SHIFT = np.uint64(33)


def shares(ids: Sequence[str]) -> NDArray[np.float64]:
    """A number in [0, 1) for each id, as if drawn at random. A row is logged, or kept by a reader
    that thins to a rate, where it is below that rate."""
    encoded = [each.encode(errors="replace") for each in ids]
    lengths = list(map(len, encoded))
    if len(set(lengths)) <= 1:
        return _shares(b"".join(encoded), len(ids), lengths[0] if lengths else 0)
    result = np.empty(len(ids), dtype=np.float64)
    sizes = np.array(lengths)
    for length in set(lengths):
        rows = np.flatnonzero(sizes == length)
        result[rows] = _shares(b"".join(encoded[row] for row in rows), len(rows), length)
    return result


def shares_of(column: Any) -> NDArray[np.float64]:
    """Of an Arrow array of ids without nulls."""
    _, offsets, data = column.buffers()
    starts = np.frombuffer(offsets, np.int32, len(column) + 1, 4 * column.offset)
    lengths = np.diff(starts)
    if not len(lengths) or lengths.min() != lengths.max():
        return shares(column.to_pylist())
    raw = memoryview(data)[starts[0] : starts[-1]] if lengths[0] else b""
    return _shares(raw, len(column), int(lengths[0]))


def _shares(data: Any, rows: int, length: int) -> NDArray[np.float64]:
    words = np.zeros((rows, -(-length // 8) * 8), dtype=np.uint8)
    words[:, :length] = np.frombuffer(data, np.uint8, rows * length).reshape(rows, length)
    state = np.full(rows, length + 1, dtype=np.uint64) * STEP
    for word in words.view("<u8").T:
        state = _mixed(state ^ word) + STEP
    state = _mixed(state)
    # 53 bits are what a float of this size holds
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> SHIFT)) * FIRST
    state = (state ^ (state >> SHIFT)) * SECOND
    return state ^ (state >> SHIFT)
