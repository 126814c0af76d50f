"""When the rows of one kind are tried next."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_WAIT = 0.25  # seconds between tries that fail, doubled with each
LONGEST_WAIT = 5.0  # where the table cannot be opened: to ask costs nothing
COSTLY_WAIT = 120.0  # where it can, and a commit fails: each may leave its data file behind


def wait_after(before: float, *, costly: bool) -> float:
    """Seconds from a try that failed to the next one; `before` is what was waited for it, 0 where
    the one before it did not fail."""
    return min(max(FIRST_WAIT, before * 2), COSTLY_WAIT if costly else LONGEST_WAIT)


class Retry:
    def __init__(self, every: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.problem = ""  # of the last try, where it failed
        self.wait = 0.0  # seconds, since then
        self._every = every
        self._clock = clock
        self._next = 0.0

    def due(self, *, woken: bool) -> bool:
        return self.left() == 0 or (woken and not self.problem)

    def left(self) -> float:
        return max(self._next - self._clock(), 0.0)

    def succeeded(self) -> None:
        self.problem, self.wait = "", 0.0
        self._next = self._clock() + self._every

    def failed(self, problem: BaseException, *, costly: bool) -> None:
        self.problem = str(problem) or type(problem).__name__
        self.wait = wait_after(self.wait, costly=costly)
        self._next = self._clock() + self.wait
