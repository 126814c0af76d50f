"""Columns of rows as parts of a message: the buffers of Arrow's format, from plain values."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat.journal.encoding.message import Part, padded

# What repeats is kept for a batch of this size and cut to the size of smaller ones.
BLOCK = 1024
_FLOAT32 = np.dtype(np.float32)


def integers(value: int, rows: int) -> Part:
    """The same in every row; a time too is one of these."""
    return Part((rows, 0), (0, 8 * rows), (struct.pack("<q", value) * rows,))


def texts(values: Sequence[str]) -> Part:
    joined = "".join(values)
    if joined.isascii():
        return _texts(list(map(len, values)), joined.encode(), 0, b"")
    encoded = [value.encode(errors="replace") for value in values]
    return _texts(list(map(len, encoded)), b"".join(encoded), 0, b"")


def optional_texts(values: Sequence[Any]) -> Part:
    """None stays null; anything else is written as its text."""
    if set(map(type, values)) == {str}:
        return texts(values)
    encoded = [b"" if value is None else str(value).encode(errors="replace") for value in values]
    known, nulls = _known(values)
    return _texts(list(map(len, encoded)), b"".join(encoded), nulls, known)


def float64s(values: Sequence[float]) -> Part:
    data = np.array(values, np.float64)
    if data.ndim != 1:
        raise ValueError("one number a row")
    return Part((len(data), 0), (0, data.nbytes), (data.tobytes(),))


def optional_numbers(values: Sequence[Any]) -> Part:
    """float64; None stays null, NaN stays NaN."""
    part = float64s(values)  # None becomes NaN here
    if None not in values:
        return part
    known, nulls = _known(values)
    return Part((len(values), nulls), (len(known), part.sizes[1]), (padded(known), *part.body))


def columns(matrix: NDArray[Any]) -> Part:
    """One float64 column a column of the matrix."""
    rows, width = matrix.shape
    data = np.array(matrix.T, dtype=np.float64, order="C").tobytes()
    return Part((rows, 0) * width, (0, 8 * rows) * width, (data,))


def vectors(matrix: NDArray[Any], rows: int) -> Part:
    """One list of float32 a row."""
    data = float32s(matrix)
    body = (same_offsets(matrix.size // rows, rows), data, bytes(-len(data) % 8))
    return Part((rows, 0, matrix.size, 0), (0, 4 * (rows + 1), 0, len(data)), body)


def float32s(matrix: NDArray[Any]) -> memoryview | bytes:
    """The bytes of its numbers, not copied where they may be used as they lie."""
    if matrix.dtype is not _FLOAT32 or not matrix.flags.c_contiguous:
        matrix = matrix.astype(np.float32, order="C", casting="same_kind")
    return matrix.data.cast("B") if matrix.size else b""


def _texts(lengths: list[int], data: bytes, nulls: int, known: bytes) -> Part:
    rows = len(lengths)
    sizes = (len(known), 4 * (rows + 1), len(data))
    return Part((rows, nulls), sizes, (padded(known), offsets(lengths), padded(data)))


def offsets(lengths: list[int]) -> bytes:
    """Where each of some texts begins and the last one ends, padded."""
    if len(set(lengths)) == 1:
        return same_offsets(lengths[0], len(lengths))
    ends = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=ends[1:])
    return padded(ends.tobytes())


def _known(values: Sequence[Any]) -> tuple[bytes, int]:
    """A validity bitmap, and how many are None."""
    known = np.array([value is not None for value in values], dtype=bool)
    return np.packbits(known, bitorder="little").tobytes(), len(values) - int(known.sum())


def same_offsets(width: int, rows: int) -> bytes:
    """Of rows that all have this many elements, padded."""
    if rows > BLOCK:
        return padded((np.arange(rows + 1, dtype=np.int32) * width).tobytes())
    return padded(_block_offsets(width)[: 4 * (rows + 1)])


@lru_cache(maxsize=256)
def _block_offsets(width: int) -> bytes:
    return (np.arange(BLOCK + 1, dtype=np.int32) * width).tobytes()
