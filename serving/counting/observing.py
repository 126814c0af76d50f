"""What goes into a model and how sure it is: sums of its inputs, its confidence, its keys.

Batches are put aside as they are and summed up later, a thousand rows at once or at a scrape: one
by one, NumPy's calls would cost as much as the model.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from homeostat.model_runtime.contract import Outputs
from homeostat.records import FeatureKind, ModelSpec
from serving.counting.distinct import Distinct
from serving.counting.snapshot import Moments
from serving.counting.tallies import Spread, Total
from serving.requests.parsing import Rows

log = logging.getLogger(__name__)

# No answer may fail because nobody can sum up what went into it.
GIVEN_UP = "inputs and confidence are observed no more"
MOST_FEATURES = 100  # the first ones of a model; more would be too many series
BULK_ROWS = 1024
BULK_BYTES = 1 << 20
WINDOW = 300.0  # seconds that means and deviations are about, at least
BLOCK = 10.0  # seconds of the sums that are forgotten together

Array = NDArray[np.float64]
Observe = Callable[[Rows, Outputs], None]


class Observing:
    """Of one model. Its observers are called from the threads that predict."""

    def __init__(
        self,
        confidence: Spread,
        uncertain: Total,
        low: float,
        clock: Callable[[], float],
    ) -> None:
        self._confidence = Confidence(confidence, uncertain, low)
        self._keys = Distinct()
        self._clock = clock
        self._inputs: dict[str, Inputs] = {}  # by version, of those in memory
        self._using = threading.Lock()
        self._failed = False

    def of(self, spec: ModelSpec) -> Observe:
        """What a version calls with each batch and what it said to it."""
        inputs = Inputs(spec, self._clock)
        with self._using:
            self._inputs[spec.version] = inputs

        def observe(rows: Rows, outputs: Outputs) -> None:
            if self._failed:
                return
            with self._using:
                try:
                    inputs.add(rows)
                    if outputs.probabilities is not None:
                        self._confidence.add(outputs.probabilities)
                    if rows.keys is not None:
                        self._keys.add(rows.keys)
                except Exception:
                    self._failed = True
                    log.exception(GIVEN_UP)

        return observe

    def gone(self, version: str) -> None:
        """It is out of memory, or about to be."""
        with self._using:
            self._inputs.pop(version, None)

    def inputs(self) -> dict[str, Moments]:
        """By feature, of the versions in memory in the last five minutes; of older rows where
        nobody looked since."""
        found: dict[str, Moments] = {}
        if self._failed:
            return found
        with self._using:
            try:
                for inputs in self._inputs.values():
                    for name, moments in inputs.moments().items():
                        found[name] = found[name] + moments if name in found else moments
            except Exception:
                self._failed = True
                log.exception(GIVEN_UP)
        return found

    def keys(self) -> bytes:
        with self._using:
            return self._keys.registers()

    def pour(self) -> None:
        if self._failed:
            return
        with self._using:
            try:
                self._confidence.pour()
            except Exception:
                self._failed = True
                log.exception(GIVEN_UP)


class Confidence:
    """The largest probability of each answer."""

    def __init__(self, spread: Spread, uncertain: Total, low: float) -> None:
        self._spread = spread
        self._uncertain = uncertain
        self._low = low
        self._low_count = 0
        self._waiting: list[Any] = []
        self._rows = 0

    def add(self, probabilities: Any) -> None:
        self._waiting.append(probabilities)
        self._rows += len(probabilities)
        if self._rows >= BULK_ROWS:
            self._sum()

    def pour(self) -> None:
        self._sum()
        self._spread.pour()
        self._uncertain.set(self._low_count)

    def _sum(self) -> None:
        if not self._waiting:
            return
        same = len({each.shape[1] for each in self._waiting}) == 1
        parts = [np.concatenate(self._waiting)] if same else self._waiting
        for each in parts:
            largest = each.max(axis=1).astype(np.float64)
            self._low_count += int((largest < self._low).sum())
            self._spread.observe_all(largest)
        self._waiting, self._rows = [], 0


class _Block(NamedTuple):
    since: float
    moments: list[Moments]


class Inputs:
    """Running sums of a version's numbers: how many, their sum, the sum of their squares, from a
    value near them, so that no digits are lost."""

    def __init__(self, spec: ModelSpec, clock: Callable[[], float]) -> None:
        numbers = [
            (place, feature.name)
            for place, feature in enumerate(spec.features)
            if feature.kind is FeatureKind.NUMBER
        ][:MOST_FEATURES]
        self._names = [name for _, name in numbers]
        self._places: Any = [place for place, _ in numbers]
        if self._places == list(range(len(numbers))):
            self._places = slice(0, len(numbers))
        self._clock = clock
        self._waiting: list[Any] = []
        self._rows = self._bytes = 0
        self._blocks: deque[_Block] = deque()
        self._begin(clock())

    def add(self, rows: Rows) -> None:
        if not self._names:
            return
        matrix = rows.matrix
        if matrix is None:
            self._waiting.append(rows.columns)
        else:
            self._waiting.append(matrix)
            self._bytes += matrix.nbytes
        self._rows += rows.count
        if self._rows >= BULK_ROWS or self._bytes >= BULK_BYTES:
            self._sum()

    def moments(self) -> dict[str, Moments]:
        now = self._clock()
        if self._waiting:
            self._sum()
        current = self._current()
        blocks, since = self._blocks, self._since
        while blocks and blocks[0].since < now - WINDOW and len(blocks) > 1:
            blocks.popleft()
        whole = [*blocks, _Block(since, current)]
        if now - since >= BLOCK:
            blocks.append(whole[-1])
            self._begin(now)
        return {
            name: reduce(add, (block.moments[place] for block in whole))
            for place, name in enumerate(self._names)
        }

    def _begin(self, now: float) -> None:
        self._since = now
        self._near: Array | None = None
        width = len(self._names)
        self._count, self._total, self._squares = (np.zeros(width) for _ in range(3))

    def _current(self) -> list[Moments]:
        near = self._near
        if near is None:
            return [Moments(0, 0, 0)] * len(self._names)
        count = np.maximum(self._count, 1)
        shift = self._total / count
        means, squares = near + shift, self._squares - self._total * shift
        return [
            Moments(*each)
            for each in zip(self._count.tolist(), means.tolist(), squares.tolist(), strict=True)
        ]

    def _sum(self) -> None:
        values = np.concatenate([self._matrix(each) for each in self._waiting])
        self._waiting, self._rows, self._bytes = [], 0, 0
        if self._near is None:
            self._near = _mean_of_known(values)
        apart = np.subtract(values, self._near, dtype=np.float64)
        count: Any = len(apart)
        each = np.ones(count)  # the sum of rows as a product takes half the time
        total, squares = each @ apart, np.einsum("ij,ij->j", apart, apart)
        if not math.isfinite(float(total.sum())):
            known = np.isfinite(apart)
            apart[~known] = 0.0
            count, total = known.sum(axis=0), each @ apart
            squares = np.einsum("ij,ij->j", apart, apart)
        self._count += count
        self._total += total
        self._squares += squares

    def _matrix(self, each: Any) -> NDArray[Any]:
        if isinstance(each, np.ndarray):
            return each.reshape(len(each), -1)[:, self._places]
        columns = [np.array(each[name], np.float64) for name in self._names]
        return np.stack(columns, axis=1)


def _mean_of_known(values: NDArray[Any]) -> Array:
    known = np.isfinite(values)
    whole = np.where(known, values, 0.0).sum(axis=0, dtype=np.float64)
    found: Array = whole / np.maximum(known.sum(axis=0), 1)
    return found
