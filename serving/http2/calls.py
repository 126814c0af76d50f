"""One call of a client, and who answers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from serving.http2.headers import Headers
from serving.http2.messages import Refused


class Call:
    """One stream, from its headers to the last byte of its answer."""

    __slots__ = (
        "admitted",
        "began",
        "caller",
        "data",
        "ended",
        "headers",
        "kept",
        "limit",
        "moved",
        "out",
        "ready",
        "size",
        "window",
    )

    def __init__(self, headers: Headers, caller: str, window: int, began: float) -> None:
        self.headers = headers
        self.caller = caller  # its connection's name, which no other has
        self.began = began  # by the event loop's clock
        self.admitted = False  # who answers it knows that the caller may ask
        self.limit = 0  # bytes its message may have, as who answers it says
        self.data: list[bytes] = []
        self.size = 0
        self.ended = False  # nothing more comes from the client
        self.window = window  # bytes we may still send
        self.out: memoryview | None = None  # of the answer, what waits for the window
        self.moved = began  # when some of the answer was last sent, if it waits
        self.ready = began  # when the answer was there, if it waits
        self.kept = 0  # bytes of all of the answer, if it waits: what was sent of it stays too

    @property
    def path(self) -> bytes:
        return self.headers.get(b":path", b"")

    @property
    def authorization(self) -> str | None:
        found = self.headers.get(b"authorization")
        return None if found is None else found.decode("latin-1")


class Answer(Protocol):
    """A message that comes later, such as asyncio's futures."""

    def add_done_callback(self, told: Callable[[Any], object], /) -> None: ...

    def exception(self) -> BaseException | None: ...

    def result(self) -> Any: ...


class Calls(Protocol):
    """What the calls mean."""

    limit: int  # bytes of the largest message

    def admit(self, call: Call) -> int:
        """How many bytes its message may have, before any of them is kept; raises HomeostatError,
        counted."""
        ...

    def turned_away(self, call: Call, refused: Refused) -> None:
        """The connection refuses a call by itself: to be counted."""
        ...

    def begin(self, call: Call, message: bytes) -> Answer:
        """The answer's message, or an error, later; raises none itself."""
        ...

    def refusal(self, error: BaseException) -> Refused:
        """What the caller is told of any error."""
        ...
