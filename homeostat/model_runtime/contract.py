"""What goes into a model and what comes out, whatever kind of model it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from homeostat.records import ModelSpec


@dataclass(frozen=True)
class Batch:
    """Rows for a model: one matrix where every feature is a number, else columns by name."""

    rows: int
    matrix: NDArray[Any] | None = None  # (rows, features): float32 for a tensor, else float64
    columns: Mapping[str, Sequence[Any]] | None = None


@dataclass(frozen=True)
class Outputs:
    """One entry a row, in the order of the batch."""

    predictions: list[str] | list[float]  # canonical text of the class; numbers for regression
    probabilities: NDArray[np.float32] | None = None  # (rows, classes)
    embedding: NDArray[np.float32] | None = None  # (rows, dimensions)


class LoadedModel(Protocol):
    """A version in memory, warmed up. predict is called by one thread at a time."""

    spec: ModelSpec
    loop_rows: int  # an event loop may wait for so many; 0: only a thread may call predict

    def predict(self, batch: Batch) -> Outputs:
        """Raises ModelError; the model stays usable unless the message says otherwise."""
        ...

    def close(self) -> None: ...
