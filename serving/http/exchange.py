"""What stands where uvicorn keeps the state of an ASGI request."""

from __future__ import annotations

from typing import Any

from homeostat.errors import HomeostatError
from serving.requests.door import Door, Refusal


class _Nobody:
    """Nobody waits for the parts of a prediction's body."""

    def set(self) -> None: ...


class Exchange:
    """One prediction, from its head to its answer."""

    __slots__ = (
        "body",
        "disconnected",
        "door",
        "error",
        "keep_alive",
        "response_complete",
        "size",
        "told",
    )
    message_event = _Nobody()

    def __init__(self, door: Door, *, keep_alive: bool) -> None:
        self.door = door
        self.keep_alive = keep_alive
        self.body: list[bytes] = []
        self.size = 0
        self.error: HomeostatError | None = None  # why it will be refused once it is here
        self.told: Any = None  # of the headers, by the door to itself
        self.response_complete = False
        self.disconnected = False

    def refused(self, error: BaseException) -> Refusal:
        refusal = self.door.refuse(error)
        if refusal.headers.get("connection") == "close":  # the rest of the request is not read
            self.keep_alive = False
        return refusal


class Ended:
    """Stands where an exchange does once nothing more of its client is looked at."""

    message_event = _Nobody()
    response_complete = True
    disconnected = False
    keep_alive = False
