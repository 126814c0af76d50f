"""An answer's head as bytes."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from serving.requests.door import Refusal

OK = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
CLOSING = b"connection: close\r\n" + OK


class CommonLines:
    """The date, and whatever else uvicorn puts into every answer: new once a second."""

    __slots__ = ("_given", "_lines", "_state")

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._given: Any = None
        self._lines = b""

    def now(self) -> bytes:
        given = self._state.default_headers
        if given is not self._given:
            self._given = given
            self._lines = b"".join([b"%b: %b\r\n" % each for each in given])
        return self._lines


def written(refusal: Refusal, common: bytes, *, last: bool) -> list[bytes]:
    """`common`: lines of every answer; `last`: the connection ends with this one."""
    headers = {**refusal.headers, "content-length": str(len(refusal.body))}
    if last:
        headers["connection"] = "close"
    lines = [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
    return [STATUS_LINE[refusal.status], common, *lines, b"\r\n", refusal.body]
