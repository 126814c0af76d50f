"""What is read in a thread, since it would hold up the event loop: images, and large bodies."""

from __future__ import annotations

import asyncio
import math
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from functools import partial

import msgspec

from serving.requests.asked import Asked
from serving.requests.forms import Written
from serving.requests.later import Later
from serving.requests.parsing import Rows
from serving.requests.problem import Overdue, Overloaded
from serving.requests.shares import has_share
from serving.requests.turns import Turns

LARGE = 256 << 10  # bytes of a body; what is smaller is read in less time than the loop notices
MOST_BYTES = 256 << 20  # of large bodies that wait for the thread
# Seconds that a thread has the interpreter while another waits for it. The event loop asks for it
# anew for each callback. Short turns cost all requests a little: only while a body is read.
USUAL_TURN, SHORT_TURN = sys.getswitchinterval(), 0.0005

Then = Callable[[Rows], Later[Written]]


class Unread(msgspec.Struct, eq=False):
    """A body that waits for the thread, or is in it."""

    read: Callable[[], Rows]
    then: Then
    asked: Asked
    count: int  # what it takes of the room, and of its caller's turn
    context: Context  # of the request: the one before it ends in another
    answer: Later[Written]
    timer: asyncio.TimerHandle | None = None
    late: bool = False  # its caller was told so

    @property
    def caller(self) -> str:
        return self.asked.whose


class Aside:
    """One after the other, callers in turn; what waits for the thread is bounded. What is overdue
    by then is not read, and what is overdue when it was read goes no further."""

    def __init__(self, what: str, most: int) -> None:
        """At most so many of `what` wait, a word for errors: "images"."""
        self._what = what
        self._most = most
        self._thread = ThreadPoolExecutor(1, "reading")  # starts none before it is used
        self._waiting: list[Unread] = []
        self._held: Counter[str] = Counter()  # by caller, with what the thread has
        self._turns: Turns | None = None  # while the thread has one

    def later(
        self, read: Callable[[], Rows], then: Then, asked: Asked | None = None, size: int = 1
    ) -> Later[Written]:
        """What `then` answers to the rows. Raises Overloaded, Overdue at once."""
        asked, loop = asked or Asked(), asyncio.get_running_loop()
        if asked.until <= loop.time():
            raise _overdue()
        self._check_room(asked.caller, size)
        body = Unread(read, then, asked, size, copy_context(), Later())
        if asked.until != math.inf:
            body.timer = loop.call_at(asked.until, self._give_up, body)
        self._held[asked.caller] += size
        self._waiting.append(body)
        if self._turns is None:
            self._turns = Turns()
            self._read_next(self._turns)
        return body.answer

    def _check_room(self, caller: str, size: int) -> None:
        """A single one is taken whatever its size. A caller without a key has no share of what
        others have filled: anybody may come without one."""
        held, most = self._held, self._most
        waiting = held.total()
        if not waiting or waiting + size <= most:
            return
        if not (caller and has_share(held, waiting, most, caller, size)):
            raise Overloaded(f"{waiting} {self._what} wait to be read already; try again")

    def _read_next(self, turns: Turns) -> None:
        sys.setswitchinterval(SHORT_TURN)
        (body,) = turns.next(self._waiting, 1)
        self._waiting.remove(body)
        reading = asyncio.get_running_loop().run_in_executor(self._thread, body.read)
        reading.add_done_callback(partial(self._go_on, turns, body), context=body.context)

    def _give_up(self, body: Unread) -> None:
        body.late = True
        if body in self._waiting:
            self._waiting.remove(body)
            self._let_go(body)
        body.answer.set_exception(_overdue())

    def _go_on(self, turns: Turns, body: Unread, reading: asyncio.Future[Rows]) -> None:
        self._let_go(body)
        if self._waiting:
            self._read_next(turns)
        else:
            self._turns = None
            # another version may be reading still: its next body makes them short again
            sys.setswitchinterval(USUAL_TURN)
        error = reading.exception()
        if body.late:
            return
        if error is None:
            try:
                body.then(reading.result()).add_done_callback(partial(_pass_on, body.answer))
            except Exception as refused:  # noqa: BLE001 - it is the caller's to hear
                error = refused
        if error is not None:
            body.answer.set_exception(error)

    def _let_go(self, body: Unread) -> None:
        if body.timer is not None:
            body.timer.cancel()
        held, caller = self._held, body.asked.caller
        held[caller] -= body.count
        if not held[caller]:
            del held[caller]


def _overdue() -> Overdue:
    return Overdue("its body was read")


def _pass_on(answer: Later[Written], found: Later[Written]) -> None:
    error = found.exception()
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(found.result())
