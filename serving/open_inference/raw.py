"""Bytes that came -> the values of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat.errors import InputError
from homeostat.feature_values import range_of
from serving.open_inference.datatypes import BYTES, NUMBERS, unpacked
from serving.requests.rows import shown


def raw_values(
    name: str, datatype: str, size: int, data: bytes, place: int, length: int
) -> NDArray[Any] | list[str]:
    """`size` values, from `length` bytes that begin at `place`; raises InputError.

    Numbers are not copied where they may be used as they lie.
    """
    if datatype == BYTES:
        return unpacked(data[place : place + length], size, name)
    dtype = number_type(name, datatype)
    if length != size * dtype.itemsize:
        raise InputError(
            f"{shown(name)}: its shape stands for {shown(size * dtype.itemsize)} bytes of "
            f"{datatype}, and {length} are there",
            field=name,
        )
    values: NDArray[Any] = np.frombuffer(data, dtype, size, place)
    if dtype.kind == "b":
        values = np.frombuffer(data, np.uint8, size, place) != 0
    # JSON of any length may lie before them
    return values if values.flags.aligned else values.copy()


def listed_values(
    name: str, dtype: np.dtype[Any], datatype: str, found: Sequence[Any], shape: Sequence[int]
) -> NDArray[Any]:
    """Numbers that came one by one; raises InputError for one that does not fit."""
    try:
        return np.array(found, dtype)
    except OverflowError:
        taken = range_of(dtype.name)
        at = next(at for at, value in enumerate(found) if not taken.low <= value < taken.end)
        row = at * (shape[0] if shape else 1) // len(found)
        raise InputError(
            f"row {row}: {shown(name)} holds {shown(found[at])}, which is no {datatype} ({taken})",
            row=row,
            field=name,
        ) from None


def number_type(name: str, datatype: str) -> np.dtype[Any]:
    dtype = NUMBERS.get(datatype)
    if dtype is None:
        raise InputError(
            f"{shown(name)} is of the datatype {shown(datatype)}; there is "
            f"{', '.join(NUMBERS)} and {BYTES}",
            field=name,
        )
    return dtype
