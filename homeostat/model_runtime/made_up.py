"""Rows that any model of a signature should be able to answer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat.model_runtime.contract import Batch


def made_up(rows: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """`shape`: of one row. Always the same ones."""
    random = np.random.default_rng(0)
    if dtype.kind == "f":
        return random.standard_normal((rows, *shape)).astype(dtype)
    # Indices of a vocabulary, bytes of an image, flags: 0 and 1 are good values of each.
    return random.integers(0, 2, (rows, *shape)).astype(dtype)


def batch_of(rows: NDArray[Any]) -> Batch:
    return Batch(len(rows), matrix=rows.reshape(len(rows), -1))
