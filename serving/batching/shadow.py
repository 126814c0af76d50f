"""Copies of answered requests for a version in shadow, which get what the others leave over.

They wait in a bounded queue of their own until nobody waits for an answer; what finds no room there
is dropped, and counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from serving.batching.batcher import Batcher
from serving.requests.forms import Piece, Written
from serving.requests.later import Later, failed
from serving.requests.parsing import Rows
from serving.requests.problem import Refused
from serving.rules.routing import Role

PAUSE = 0.005  # seconds until it is asked again whether anybody waits
MOST = 128  # rows at once: who comes meanwhile waits no longer than they take


class Shadow:
    """Before one version; used from the event loop's thread. `busy`: whether others wait."""

    def __init__(
        self,
        mirror: Batcher,
        *,
        limit: int,
        busy: Callable[[], bool],
        dropped: Callable[[int], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._mirror = mirror
        self._limit = limit
        self._busy = busy
        self._dropped = dropped
        self._loop = loop
        self._waiting: deque[Rows] = deque()
        self._rows = 0
        self._at_work = False
        self._closed = False

    def offer(self, rows: Rows) -> None:
        """A request that was answered, with the ids of its answer."""
        if self._closed or self._rows + rows.count > self._limit:
            self._dropped(rows.count)
            return
        self._waiting.append(copy_of(rows))
        self._rows += rows.count
        if not self._at_work:
            self._at_work = True
            self._loop.call_soon(self._turn)

    def close(self) -> None:
        """What waits is dropped; what runs is logged still."""
        self._closed = True
        self._dropped(self._rows)
        self._waiting.clear()
        self._rows = 0

    def _turn(self) -> None:
        if not self._waiting:
            self._at_work = False
        elif self._busy():
            self._loop.call_later(PAUSE, self._turn)
        else:
            given = self._next()
            together = asyncio.gather(*map(self._ask, given), return_exceptions=True)
            together.add_done_callback(lambda _: self._turn())

    def _next(self) -> list[Rows]:
        given: list[Rows] = []
        count = 0
        while self._waiting and (not given or count + self._waiting[0].count <= MOST):
            count += self._waiting[0].count
            given.append(self._waiting.popleft())
        self._rows -= count
        return given

    def _ask(self, rows: Rows) -> Later[Written]:
        try:
            answer = self._mirror.submit(rows)
        except Refused as error:
            answer = failed(error)
        answer.add_done_callback(lambda done: self._answered(rows, done))
        return answer

    def _answered(self, rows: Rows, answer: Later[Written]) -> None:
        if answer.exception() is not None:
            self._dropped(rows.count)


def copy_of(rows: Rows) -> Rows:
    return Rows(rows.count, rows.ids, rows.matrix, rows.columns, rows.keys, _unwritten, Role.SHADOW)


def _unwritten(_piece: Piece) -> bytes:
    return b""
