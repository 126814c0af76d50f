"""When the rows of one kind are tried next."""

from __future__ import annotations

import time

FIRST_WAIT = 0.25  # seconds between tries that fail, doubled with each
LONGEST_WAIT = 5.0  # where the table cannot be opened: to ask costs nothing
COSTLY_WAIT = 120.0  # where it can, and a commit fails: each may leave its data file behind


class Retry:
    def __init__(self, every: float) -> None:
        self.problem = ""  # of the last try, where it failed
        self._every = every
        self._wait = 0.0
        self._next = 0.0  # monotonic

    def due(self, *, woken: bool) -> bool:
        return self.left() == 0 or (woken and not self.problem)

    def left(self) -> float:
        return max(self._next - time.monotonic(), 0.0)

    def succeeded(self) -> None:
        self.problem, self._wait = "", 0.0
        self._next = time.monotonic() + self._every

    def failed(self, problem: BaseException, *, costly: bool) -> None:
        self.problem = str(problem) or type(problem).__name__
        longest = COSTLY_WAIT if costly else LONGEST_WAIT
        self._wait = min(max(FIRST_WAIT, self._wait * 2), longest)
        self._next = time.monotonic() + self._wait
