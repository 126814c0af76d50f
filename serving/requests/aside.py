"""What is read in a thread, since it would hold up the event loop: images, and large bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from serving.requests.forms import Written
from serving.requests.later import Later
from serving.requests.parsing import Rows
from serving.requests.problem import Overloaded

LARGE = 256 << 10  # bytes of a body; what is smaller is read in less time than the loop notices
MOST_BYTES = 256 << 20  # of large bodies that wait for the thread

Then = Callable[[Rows], Later[Written]]


class Aside:
    """One after the other; what waits for the thread is bounded."""

    def __init__(self, what: str, most: int) -> None:
        """At most so many of `what` wait, a word for errors: "images"."""
        self._what = what
        self._most = most
        self._thread = ThreadPoolExecutor(1, "reading")  # starts none before it is used
        self._open = 0

    def later(self, read: Callable[[], Rows], then: Then, size: int = 1) -> Later[Written]:
        """What `then` answers to the rows. Raises Overloaded at once."""
        if self._open and self._open + size > self._most:
            raise Overloaded(f"{self._open} {self._what} wait to be read already; try again")
        answer: Later[Written] = Later()
        self._open += size
        reading = asyncio.get_running_loop().run_in_executor(self._thread, read)
        reading.add_done_callback(partial(self._go_on, answer, then, size))
        return answer

    def _go_on(
        self, answer: Later[Written], then: Then, size: int, reading: asyncio.Future[Rows]
    ) -> None:
        self._open -= size
        error = reading.exception()
        if error is None:
            try:
                then(reading.result()).add_done_callback(partial(_pass_on, answer))
            except Exception as refused:  # noqa: BLE001 - it is the caller's to hear
                error = refused
        if error is not None:
            answer.set_exception(error)


def _pass_on(answer: Later[Written], found: Later[Written]) -> None:
    error = found.exception()
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(found.result())
