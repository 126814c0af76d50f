"""Our transport alone: the server's own uvicorn settings, a body read, a constant answered.

The constant is as long as the server's answer to the same request.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvicorn
import uvloop

from serving.doors.asgi import AsgiScope
from serving.http.http_server import uvicorn_config
from serving.requests.body import Receive, Send, read_body
from serving.requests.door import Door, Headers, Refusal
from serving.requests.forms import Written
from serving.requests.later import Later
from serving.sharing.listening import listen

ANSWER = (
    b'{"model":"bench","version":"1","ids":["01890a5d-ac96-774b-bcce-b302099a8057"],'
    b'"predictions":["0"],"probabilities":[[0.3333333,0.3333333,0.3333334]],'
    b'"classes":["0","1","2"]}'
)
HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(ANSWER)),
]


async def constant(scope: AsgiScope, receive: Receive, send: Send) -> None:
    await read_body(receive, 8_000_000)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


class ConstantDoor:
    """See serving.requests.door.Door."""

    limit = 8_000_000

    def __init__(self, written: bytes = ANSWER) -> None:
        self._written = written

    def admit(self, headers: Headers) -> None: ...

    def answer(self, body: bytes, told: Any) -> Later[Written]:
        answer: Later[Written] = Later()
        answer.set_result(self._written)
        return answer

    def answered(self, started: float) -> None: ...

    def refuse(self, error: BaseException) -> Refusal:
        return Refusal(500, {}, b"")


async def main(way: str, port: int) -> None:
    doors: dict[str, Door] = {"/predict": ConstantDoor()} if way == "short" else {}
    server = uvicorn.Server(uvicorn_config(constant, doors, drain=1.0))
    await server.serve(sockets=[listen("127.0.0.1", port)])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[3], int(sys.argv[2])))
