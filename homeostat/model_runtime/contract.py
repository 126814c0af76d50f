"""What goes into a model and what comes out, whatever kind of model it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
class InProcess(Protocol):
    """What a LoadedModel also is whose process may end by itself."""

    def watch(self, tell: Callable[[bool], None]) -> None:
        """Start it again from now on as soon as it ends. `tell`, called in any thread, hears that
        it is away (True) and that the start is over (False), which may have failed: the next
        predict makes another. Rows that its end is no fault of raise ModelAway."""
        ...
