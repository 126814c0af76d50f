"""Arrow arrays straight from buffers.

pa.array() and pa.scalar() import pandas wherever it is installed, and the server must not carry
it; from buffers they are as fast, and numbers are not copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FLOATS = pa.list_(pa.float32())
TIME = pa.timestamp("us", tz="UTC")


def numbers(values: NDArray[Any], type_: Any) -> Any:
    """The caller sees to it that the array's type is the Arrow type's."""
    return pa.Array.from_buffers(
        type_, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))]
    )


def repeated(value: float, count: int, dtype: str, type_: Any) -> Any:
    return numbers(np.full(count, value, dtype=dtype), type_)


def floats(matrix: NDArray[Any] | None, rows: int) -> Any:
    """One list of float32 a row; nulls where there is no matrix."""
    if matrix is None:
        return pa.nulls(rows, FLOATS)
    flat = matrix.reshape(rows, -1)
    if flat.dtype != np.float32:
        flat = flat.astype(np.float32)
    width = flat.shape[1]
    offsets = np.arange(rows + 1, dtype=np.int32) * width
    values = numbers(flat.reshape(-1), pa.float32())
    return pa.Array.from_buffers(FLOATS, rows, [None, pa.py_buffer(offsets)], children=[values])


def float_columns(matrix: NDArray[Any]) -> list[Any]:
    """One float64 array a column, all in one buffer."""
    rows, width = matrix.shape
    flat = numbers(np.array(matrix.T, dtype=np.float64, order="C").reshape(-1), pa.float64())
    return [flat.slice(at * rows, rows) for at in range(width)]


def booleans(value: bool, count: int) -> Any:
    """The same in every row."""
    bits = pa.py_buffer((b"\xff" if value else b"\0") * ((count + 7) // 8))
    return pa.Array.from_buffers(pa.bool_(), count, [None, bits])


def text(value: str, count: int) -> Any:
    """The same text in every row."""
    data = value.encode(errors="replace")
    offsets = np.arange(count + 1, dtype=np.int32) * len(data)
    return _strings(offsets, data * count, None)


def texts(values: Sequence[str]) -> Any:
    joined = "".join(values)
    offsets = np.zeros(len(values) + 1, dtype=np.int32)
    if joined.isascii():
        np.cumsum(np.fromiter(map(len, values), np.int32, len(values)), out=offsets[1:])
        return _strings(offsets, joined.encode(), None)
    encoded = [value.encode(errors="replace") for value in values]
    np.cumsum(np.fromiter(map(len, encoded), np.int32, len(values)), out=offsets[1:])
    return _strings(offsets, b"".join(encoded), None)


def optional_texts(values: Sequence[Any]) -> Any:
    """None stays null; anything else is written as its text."""
    if set(map(type, values)) == {str}:
        return texts(values)
    known = [value is not None for value in values]
    full = texts(["" if value is None else str(value) for value in values])
    _, offsets, data = full.buffers()
    return pa.Array.from_buffers(pa.string(), len(values), [_bitmap(known), offsets, data])


def optional_numbers(values: Sequence[Any]) -> Any:
    """float64; None stays null, NaN stays NaN."""
    full = np.array(values, dtype=np.float64)  # None becomes NaN here
    validity = _bitmap([value is not None for value in values]) if None in values else None
    return pa.Array.from_buffers(pa.float64(), len(full), [validity, pa.py_buffer(full)])


def _bitmap(known: list[bool]) -> Any:
    return pa.py_buffer(np.packbits(np.array(known, dtype=bool), bitorder="little"))


def _strings(offsets: NDArray[np.int32], data: bytes, validity: Any) -> Any:
    buffers = [validity, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)
