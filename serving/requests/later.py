"""An answer that is not there yet, as asyncio's futures are, for those who wait on the event loop.

Whoever waits is called at once when it comes, not in the loop's next turn: of what a small model's
request costs, asyncio's futures were a tenth.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


class Later(Generic[T]):
    """Used on the event loop's thread alone; settled once. Nobody can cancel it: an answer that
    nobody waits for any more is made all the same."""

    __slots__ = ("_error", "_others", "_settled", "_told", "_value")

    def __init__(self) -> None:
        self._settled = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._told: Callable[[Later[T]], object] | None = None
        self._others: list[Callable[[Later[T]], object]] = []

    def set_result(self, value: T) -> None:
        self._value = value
        self._settle()

    def set_exception(self, error: BaseException) -> None:
        self._error = error
        self._settle()

    def exception(self) -> BaseException | None:
        """Once it is settled."""
        return self._error

    def result(self) -> T:
        """Once it is settled; raises its error."""
        if self._error is not None:
            raise self._error
        value: T = self._value
        return value

    def add_done_callback(self, told: Callable[[Later[T]], object]) -> None:
        """In the order in which they are added; at once where it is settled already."""
        if self._settled:
            told(self)
        elif self._told is None:
            self._told = told
        else:
            self._others.append(told)

    def __await__(self) -> Generator[Any, None, T]:
        if not self._settled:
            waiting = asyncio.get_running_loop().create_future()
            self.add_done_callback(lambda _: _wake(waiting))
            yield from waiting
        return self.result()

    def _settle(self) -> None:
        self._settled = True
        told, others = self._told, self._others
        self._told = None
        if told is not None:
            self._tell(told)
        for each in others:
            self._tell(each)

    def _tell(self, told: Callable[[Later[T]], object]) -> None:
        """One that fails keeps no other from its answer."""
        try:
            told(self)
        except Exception:
            log.exception("an answer did not reach who waits for it")


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():  # cancelled
        waiting.set_result(None)


def failed(error: BaseException) -> Later[Any]:
    found: Later[Any] = Later()
    found.set_exception(error)
    return found
