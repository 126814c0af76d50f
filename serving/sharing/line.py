"""Supervisor and worker talk over a pair of sockets: either may ask the other.

A message is its length and (kind, number, what, told) as MessagePack. The line ends with either
process.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from homeostat.errors import HomeostatError, Unavailable

log = logging.getLogger(__name__)

ASK, ANSWER, REFUSAL = 0, 1, 2
PATIENCE = 10.0  # seconds for an answer, if the one who asks says nothing else
_LENGTH = 4
_MOST = 1 << 28  # bytes of a message

Serve = Callable[[str, Any], Awaitable[Any]]
_Message = tuple[int, int, str, Any]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Message).decode


class Line:
    """One end. `serve` answers what the other end asks."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, serve: Serve
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._serve = serve
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._serving: set[asyncio.Task[None]] = set()

    @classmethod
    async def over(cls, end: socket.socket, serve: Serve) -> Line:
        return cls(*await asyncio.open_connection(sock=end), serve)

    async def ask(self, what: str, told: Any = None, *, within: float = PATIENCE) -> Any:
        """Raises Unavailable where the other end does not answer in time, or says why it cannot."""
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            self._send((ASK, number, what, told))
            return await asyncio.wait_for(answer, within)
        except (TimeoutError, OSError):
            raise Unavailable(f"no answer to {what} within {within:g} s") from None
        finally:
            del self._asked[number]

    async def run(self) -> None:
        """Until the other end is gone."""
        try:
            while True:
                length = int.from_bytes(await self._reader.readexactly(_LENGTH), "big")
                if length > _MOST:
                    break
                self._take(_decode(await self._reader.readexactly(length)))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._writer.close()
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(Unavailable("the other process has ended"))

    def _take(self, message: _Message) -> None:
        kind, number, what, told = message
        if kind == ASK:
            task = asyncio.ensure_future(self._answer(number, what, told))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
            return
        asked = self._asked.get(number)
        if asked is None or asked.done():
            return
        if kind == ANSWER:
            asked.set_result(told)
        else:
            asked.set_exception(Unavailable(what))

    async def _answer(self, number: int, what: str, told: Any) -> None:
        try:
            message: _Message = (ANSWER, number, "", await self._serve(what, told))
        except HomeostatError as error:
            message = (REFUSAL, number, str(error), None)
        except Exception as error:
            log.exception("%s failed unexpectedly", what)
            message = (REFUSAL, number, f"{what} failed: {error}", None)
        self._send(message)

    def _send(self, message: _Message) -> None:
        body = _encode(message)
        if not self._writer.is_closing():
            self._writer.write(len(body).to_bytes(_LENGTH, "big") + body)
