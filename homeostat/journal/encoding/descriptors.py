"""Six numbers that describe a row's inputs, whatever the inputs are.

The log holds them where inputs are too many or too private to keep, and the monitor compares them
with those of its reference.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

DESCRIPTORS = ("mean", "deviation", "smallest", "largest", "zeros", "missing")


def describe(
    matrix: NDArray[Any], other_missing: NDArray[np.integer[Any]] | None = None, others: int = 0
) -> NDArray[np.float32]:
    """One row of DESCRIPTORS for each row of numbers, in which NaN is a missing one.

    Inputs that are no numbers count only for the share that is missing: there are `others` of
    them in a row, of which `other_missing` are. What cannot be told is NaN: the first five where
    a row has no number, the last where it has no input at all.
    """
    flat = matrix.reshape(len(matrix), math.prod(matrix.shape[1:]))
    numbers = flat.astype(np.float64, copy=False)
    missing = np.isnan(numbers)
    lacking = missing.sum(axis=1)
    count = numbers.shape[1] - lacking
    result = np.full((len(numbers), len(DESCRIPTORS)), np.nan, dtype=np.float32)
    some = count > 0
    if some.any():
        result[some, :5] = _of_numbers(numbers[some], missing[some], count[some])
    if numbers.shape[1] + others:
        absent = lacking if other_missing is None else lacking + other_missing
        result[:, 5] = absent / (numbers.shape[1] + others)
    return result


def _of_numbers(
    numbers: NDArray[np.float64], missing: NDArray[np.bool_], count: NDArray[Any]
) -> NDArray[np.float64]:
    present = np.where(missing, 0.0, numbers)
    mean = present.sum(axis=1) / count
    distance = np.where(missing, 0.0, numbers - mean[:, None])
    return np.stack(
        [
            mean,
            np.sqrt((distance**2).sum(axis=1) / count),
            np.where(missing, np.inf, numbers).min(axis=1),
            np.where(missing, -np.inf, numbers).max(axis=1),
            (numbers == 0).sum(axis=1) / count,
        ],
        axis=1,
    )
