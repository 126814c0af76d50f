"""Listens for HTTP/2 connections, and ends them in order."""

from __future__ import annotations

import asyncio
import socket
import ssl
from itertools import count

from serving.http2.calls import Calls
from serving.http2.connection import Connection

SWEEP = 1.0  # seconds between two looks at all connections
LOOK = 0.02  # seconds between two looks at what is left, at the end


class Http2Server:
    """`start` begins to answer on a socket that is bound already; `stop` takes no new calls and
    waits for the open ones."""

    def __init__(
        self,
        listener: socket.socket,
        calls: Calls,
        *,
        address: str,
        arrive_within: float,
        keep_alive: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.address = address
        self._listener = listener
        self._calls = calls
        self._arrive_within = arrive_within
        self._keep_alive = keep_alive
        self._tls = tls
        self._numbers = count(1)
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._calls, self._connections, self._name(), loop),
            sock=self._listener,
            ssl=self._tls,
        )
        self._sweeping = asyncio.create_task(self._sweep())

    async def stop(self, grace: float) -> None:
        if self._server is None or self._sweeping is None:
            self._listener.close()
            return
        self._sweeping.cancel()
        self._server.close()
        loop = asyncio.get_running_loop()
        for connection in list(self._connections):
            connection.leave()
        until = loop.time() + grace
        while self._connections and loop.time() < until:
            await asyncio.sleep(LOOK)
        for connection in list(self._connections):
            connection.end()

    def connections(self) -> int:
        return len(self._connections)

    def in_flight(self) -> int:
        """Calls, from their headers to the last byte of their answer."""
        return sum(each.in_flight for each in self._connections)

    def _name(self) -> str:
        return f"connection {next(self._numbers)}"

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP)
            now = loop.time()
            for connection in list(self._connections):
                connection.sweep(now, call=self._arrive_within, idle=self._keep_alive)
