"""What carries requests asks of a door, and what every door gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from serving.requests.forms import Written
from serving.requests.later import Later
from serving.requests.problem import Problem

Headers = Iterable[tuple[bytes, bytes]]


class Refusal(NamedTuple):
    """What goes out instead of an answer."""

    status: int
    headers: Mapping[str, str]  # all but the length
    body: bytes


def plainly(problem: Problem) -> Refusal:
    """As problem+json: where a door has no form of its own, or none is known."""
    return Refusal(problem.status, problem.headers(), problem.body())


class Door(Protocol):
    """Takes whole bodies and answers with whole bodies, on the event loop's thread."""

    limit: int  # bytes of a body

    def admit(self, headers: Headers) -> Any:
        """Before a byte of the body is read; raises HomeostatError.

        Returns what `answer` has to know of the headers.
        """
        ...

    def answer(self, body: bytes, told: Any) -> Later[Written]:
        """Later; raises HomeostatError, and so may the future. `told`: see admit."""
        ...

    def answered(self, started: float) -> None:
        """An answer goes out; `started`: when its body was complete, by perf_counter."""
        ...

    def refuse(self, error: BaseException) -> Refusal:
        """An error goes out instead, as this door's callers expect it; counted."""
        ...
