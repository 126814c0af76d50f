"""What the server hands to the journal: the rows of one micro-batch, by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray


class PredictionBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that were predicted together: one moment, one version.

    `append` copies what it takes: the arrays may be used again.
    """

    ids: Sequence[str]
    time_us: int  # microseconds since 1970, UTC
    version: str
    role: str = "champion"
    features: tuple[str, ...]
    matrix: NDArray[Any] | None = None  # (rows, features), where every feature is a number
    tensor: bool  # stored as one list column; else one column a feature
    columns: Mapping[str, Sequence[Any]] | None = None  # instead of the matrix, by feature
    categories: frozenset[str] | None = None  # features that are text; None: as their values look
    keys: Sequence[str | None] | None = None  # the caller's own, one a row
    cached: bool = False
    predictions: Sequence[str] | Sequence[float]
    probabilities: NDArray[np.float32] | None = None  # (rows, classes)
    embedding: NDArray[np.float32] | None = None  # (rows, dimensions)
    latency_us: int
