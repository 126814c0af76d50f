"""What carries requests asks of a door, and what every door gives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

Headers = Iterable[tuple[bytes, bytes]]


class Door(Protocol):
    """Takes whole bodies and answers with whole bodies of JSON, on the event loop's thread."""

    limit: int  # bytes of a body

    def admit(self, headers: Headers) -> None:
        """Before a byte of the body is read; raises HomeostatError."""
        ...

    def answer(self, body: bytes) -> asyncio.Future[bytes]:
        """Later; raises HomeostatError, and so may the future."""
        ...

    def answered(self, started: float) -> None:
        """An answer goes out; `started`: when its body was complete, by perf_counter."""
        ...

    def refused(self, status: int) -> None:
        """An error goes out instead."""
        ...
