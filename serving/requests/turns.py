"""Who is next where more waits than fits a batch: no caller's many rows keep another from its few.

Each caller has had so many rows; the one that has had fewest is next, and among equals the one that
has waited longest. Who comes later begins where the others are, so that nobody saves up turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol, TypeVar


class Request(Protocol):
    @property
    def caller(self) -> str: ...
    @property
    def count(self) -> int: ...


R = TypeVar("R", bound=Request)


class Turns:
    """Holds for as long as more waits than fits; start anew with each such time."""

    def __init__(self) -> None:
        self._had: dict[str, int] = {}  # rows, by caller

    def next(self, waiting: Iterable[R], most: int) -> list[R]:
        """Whole requests of up to `most` rows together; one that fits nowhere goes alone. A
        caller's own requests keep their order."""
        lines: dict[str, deque[tuple[int, R]]] = {}
        for place, request in enumerate(waiting):
            lines.setdefault(request.caller, deque()).append((place, request))
        self._begin(list(lines))
        heap = [(self._had[caller], line[0][0], caller) for caller, line in lines.items()]
        heapify(heap)
        chosen: list[R] = []
        count = 0
        while heap:
            had, _, caller = heappop(heap)
            line = lines[caller]
            request = line[0][1]
            if chosen and count + request.count > most:
                continue  # the others' may fit still
            line.popleft()
            chosen.append(request)
            count += request.count
            self._had[caller] = had + request.count
            if line:
                heappush(heap, (self._had[caller], line[0][0], caller))
        return chosen

    def _begin(self, callers: Sequence[str]) -> None:
        """Those who are gone are forgotten; those who are new begin with the least that the others
        have had."""
        known = {caller: self._had[caller] for caller in callers if caller in self._had}
        least = min(known.values(), default=0)
        self._had = {caller: known.get(caller, least) for caller in callers}
