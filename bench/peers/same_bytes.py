"""Our transport alone, with the bytes of a real exchange: what lies in FOLDER/answer.bin is
answered to every body on the path in FOLDER/path.txt."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvicorn
import uvloop

from bench.peers.constant import ConstantDoor, constant
from serving.http.http_server import uvicorn_config
from serving.sharing.listening import listen


async def main(folder: Path, port: int) -> None:
    door = ConstantDoor((folder / "answer.bin").read_bytes())
    path = (folder / "path.txt").read_text()
    server = uvicorn.Server(uvicorn_config(constant, {path: door}, drain=1.0))
    await server.serve(sockets=[listen("127.0.0.1", port)])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1]), int(sys.argv[2])))
