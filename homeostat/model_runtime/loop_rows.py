"""Up to how many rows a model answers so soon that an event loop may wait for it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

from homeostat.errors import ModelError
from homeostat.records import ModelSpec

# An event loop may wait this long; a handover to a thread and back costs a tenth of it.
LONGEST = 0.003  # seconds
ROWS = (64, 128, 256, 512, 1024)  # that a model is tried with; more are never for an event loop
# Whatever the model, the loop joins the rows of a batch, sums them up and logs them: some 10
# nanoseconds a number. So many are one image of 3 x 224 x 224.
MOST_NUMBERS = 160_000
_TRIES = 5

Rows = TypeVar("Rows")


def most_rows(spec: ModelSpec) -> int:
    """Of a batch on an event loop, however soon the model answers; 0 where a single row is too
    large."""
    shape = spec.tensor_shape
    numbers = len(spec.features) if shape is None else math.prod(shape)
    return min(ROWS[-1], MOST_NUMBERS // max(1, numbers))


def loop_rows(most: int, made_up: Callable[[int], Rows], predict: Callable[[Rows], object]) -> int:
    """At `most`; `predict` answers what `made_up` gives for a number of rows. 0 where the fewest
    take too long already. Each number is tried: twice the rows may take far more than twice the
    time."""
    found = 0
    for count in ROWS:
        if found >= most or not _is_soon(predict, made_up(count)):
            break
        found = count
    return min(found, most)


def _is_soon(predict: Callable[[Rows], object], rows: Rows) -> bool:
    """In any of some tries: the first ones pay for what stays in memory."""
    for _ in range(_TRIES):
        began = time.perf_counter()
        try:
            predict(rows)
        except ModelError:  # so many are not for this one; who asks them is told
            return False
        if time.perf_counter() - began < LONGEST:
            return True
    return False
