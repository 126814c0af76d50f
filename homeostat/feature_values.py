"""What a feature's declared type takes: the range of whole numbers, the words for booleans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from homeostat.records import Feature, ModelSpec

BOOLEAN = "bool"
# What is taken for a boolean -> the text it is logged as. 1 and 1.0 are the same key as True.
BOOLEANS: Mapping[Any, str] = {
    True: "true",
    "true": "true",
    "True": "true",
    "1": "true",
    False: "false",
    "false": "false",
    "False": "false",
    "0": "false",
}


class Range(NamedTuple):
    """Of whole numbers. Both ends are exact as doubles too, as the greatest of 64 bits is not."""

    low: int
    end: int  # the first that is too large

    def __str__(self) -> str:
        return f"{self.low} to {self.end - 1}"


def ranges_of(spec: ModelSpec) -> list[Range | None]:
    """One a feature; None where it is no whole number."""
    if spec.tensor_shape is not None and spec.tensor_dtype.startswith(("int", "uint")):
        return [range_of(spec.tensor_dtype)] * len(spec.features)
    return [
        range_of(feature.dtype or "int64") if feature.integer else None for feature in spec.features
    ]


def is_boolean(feature: Feature) -> bool:
    return feature.dtype == BOOLEAN


def range_of(dtype: str) -> Range:
    """Of one of NumPy's types of whole numbers."""
    info = np.iinfo(dtype)
    return Range(int(info.min), int(info.max) + 1)
