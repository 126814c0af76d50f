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


def booleans(value: bool, count: int) -> Any:
    """The same in every row."""
    bits = pa.py_buffer((b"\xff" if value else b"\0") * ((count + 7) // 8))
    return pa.Array.from_buffers(pa.bool_(), count, [None, bits])


def text(value: str, count: int) -> Any:
    """The same text in every row."""
    data = value.encode(errors="replace")
    offsets = np.arange(count + 1, dtype=np.int32) * len(data)
    return _strings(offsets, data * count)


def texts(values: Sequence[str]) -> Any:
    joined = "".join(values)
    offsets = np.zeros(len(values) + 1, dtype=np.int32)
    if joined.isascii():
        np.cumsum(np.fromiter(map(len, values), np.int32, len(values)), out=offsets[1:])
        return _strings(offsets, joined.encode())
    encoded = [value.encode(errors="replace") for value in values]
    np.cumsum(np.fromiter(map(len, encoded), np.int32, len(values)), out=offsets[1:])
    return _strings(offsets, b"".join(encoded))


def _strings(offsets: NDArray[np.int32], data: bytes) -> Any:
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)
