"""The protocol's names of types, and tensors of strings as bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from homeostat.errors import InputError

BYTES = "BYTES"
NUMBERS: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}
_NAMES = {str(dtype): name for name, dtype in NUMBERS.items()}
_LENGTH = struct.Struct("<I")
_UUID_CHARACTERS = 36
_UUID_LENGTH = _LENGTH.pack(_UUID_CHARACTERS)
_UUID_SEPARATOR = _UUID_LENGTH.decode()  # all ASCII: "$" and three zeros


def name_of(dtype: str) -> str:
    """The protocol's name of one of NumPy's types."""
    return _NAMES.get(dtype, "FP32")


def with_length(value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    return _LENGTH.pack(len(data)) + data


def packed(values: Iterable[str]) -> bytes:
    """Strings as the protocol has them: each after its length, of four bytes."""
    return b"".join(map(with_length, values))


def packed_ids(ids: Sequence[str]) -> bytes:
    """The same, in one go for the ids that the server makes itself."""
    text = _UUID_SEPARATOR.join(ids)
    if text.isascii() and set(map(len, ids)) == {_UUID_CHARACTERS}:
        return _UUID_LENGTH + text.encode()
    return packed(ids)


def unpacked(data: bytes, count: int, name: str) -> list[str]:
    """Raises InputError where they are not `count` strings of UTF-8."""
    values: list[str] = []
    place, end = 0, len(data)
    while place < end:
        if len(values) == count or place + _LENGTH.size > end:
            break
        (length,) = _LENGTH.unpack_from(data, place)
        place += _LENGTH.size
        if place + length > end:
            raise InputError(
                f'"{name}": string {len(values)} is cut off: {length} bytes are announced and '
                f"{end - place} are there",
                row=len(values),
                field=name,
            )
        values.append(text_of(data[place : place + length], name, len(values)))
        place += length
    if len(values) != count or place != end:
        raise InputError(f'"{name}" does not hold the {count} strings of its shape', field=name)
    return values


def text_of(data: bytes, name: str, row: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InputError(f'row {row}: "{name}" is not UTF-8', row=row, field=name) from None
