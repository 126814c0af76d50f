"""Our transport alone: the server's own uvicorn settings, a body read, a constant answered.

The constant is as long as the server's answer to the same request.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvicorn
import uvloop

from serving.asgi import AsgiScope, Front
from serving.body import Receive, Send, read_body
from serving.server import listen, uvicorn_config

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


async def main(port: int) -> None:
    server = uvicorn.Server(uvicorn_config(cast(Front, constant), drain=1.0))
    await server.serve(sockets=[listen("127.0.0.1", port)])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[2])))
