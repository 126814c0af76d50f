"""Up to how many rows a model answers so soon that an event loop may wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from homeostat.errors import ModelError

# An event loop may wait this long; a handover to a thread and back costs a tenth of it.
LONGEST = 0.003  # seconds
ROWS = (64, 128, 256, 512, 1024)  # that a model is tried with; more are never for an event loop
_TRIES = 5


def loop_rows(predict: Callable[[int], object]) -> int:
    """`predict` answers so many made-up rows; 0 where the fewest take too long already. Each number
    is tried: twice the rows may take far more than twice the time."""
    found = 0
    for rows in ROWS:
        if not _is_soon(predict, rows):
            break
        found = rows
    return found


def _is_soon(predict: Callable[[int], object], rows: int) -> bool:
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
