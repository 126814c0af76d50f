"""The HTTP server's life: how it is set up, what it looks at every second, how it ends."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import uvicorn

from homeostat.settings_of_serving import ServingSettings
from serving.doors.asgi import AsgiApp
from serving.doors.grpc_server import GrpcServer
from serving.http.acceptor import Acceptor
from serving.http.connection import Connection
from serving.requests.door import Door
from serving.sharing.certificate_pair import load_pair
from serving.sharing.listening import BACKLOG

log = logging.getLogger(__name__)

KEEP_ALIVE = 75  # seconds; longer than a usual load balancer's 60, so that it closes first
SWEEP = 1.0  # seconds between two looks at all connections
FAREWELL = 2.0  # seconds in which who has a connection open may still ask once


def uvicorn_config(app: AsgiApp, doors: Mapping[str, Door], drain: float) -> uvicorn.Config:
    by_path = {path.encode(): door for path, door in doors.items()}
    return uvicorn.Config(
        app,
        http=cast(type[asyncio.Protocol], partial(Connection, by_path)),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(drain)),
    )


class Certificate:
    """What the server shows by TLS: read at the start, and again when it is told to."""

    def __init__(self, serving: ServingSettings, protocol: str = "http/1.1") -> None:
        self._certificate = serving.tls_certificate
        self._key = serving.tls_key
        self.context: ssl.SSLContext | None = None
        if self._certificate is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.minimum_version = ssl.TLSVersion.TLSv1_2
            self.context.set_alpn_protocols([protocol])
            self.read()

    def read(self) -> None:
        """For the connections that begin from now on. Raises SettingsError, and the one before
        stays."""
        if self.context is None or self._certificate is None:
            return
        load_pair(self._certificate, self._key, self.context)


class Server(uvicorn.Server):
    """Both servers stop taking requests at once, and wait for the open ones.

    With an acceptor, the listening socket is shared with other processes.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        certificate: Certificate,
        beside: GrpcServer | None,
        acceptor: Acceptor | None,
        drain: float,
    ) -> None:
        super().__init__(config)
        self._certificate = certificate
        self._beside = beside
        self._acceptor = acceptor
        self._drain = drain
        self._drained_by: float | None = None  # by the event loop's clock, once it goes down
        self._leaving: asyncio.Task[None] | None = None
        if acceptor is not None:
            self.server_state.connections = acceptor.connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.ssl = self._certificate.context
        if self._acceptor is None:
            await super().startup(sockets)
            return
        await self.lifespan.startup()
        protocol: Any = self.config.http_protocol_class
        make = partial(
            protocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        self._acceptor.start(make, self.config.ssl)
        self.servers: list[Any] = [self._acceptor]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._drained_by = asyncio.get_running_loop().time() + self._drain
        if self._beside is None:
            await super().shutdown(sockets)
        else:
            await asyncio.gather(super().shutdown(sockets), self._beside.stop(self._drain))

    def left(self) -> float:
        """Of the time for what is open to be answered, in seconds."""
        if self._drained_by is None:
            return self._drain
        return max(0.0, self._drained_by - asyncio.get_running_loop().time())

    def leave(self) -> None:
        """End without a failed request: no new connections; those that are there are told with
        their next answer that it is the last one."""
        self._leaving = asyncio.create_task(self._leave())

    async def _leave(self) -> None:
        if self._acceptor is not None:
            self._acceptor.close()
        for connection in self.connections():
            connection.retire()
        loop = asyncio.get_running_loop()
        until = loop.time() + FAREWELL
        while self.server_state.connections and loop.time() < until:
            await asyncio.sleep(0.02)
        self.should_exit = True

    def connections(self) -> Sequence[Connection]:
        return [each for each in self.server_state.connections if isinstance(each, Connection)]


async def sweep(
    server: Server, request_within: float, every_second: Sequence[Callable[[], None]]
) -> None:
    """End connections that nobody uses, and requests that do not arrive; and what else is looked at
    from time to time."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(SWEEP)
        now = loop.time()
        for connection in server.connections():
            connection.end_if_overdue(now, request=request_within, idle=KEEP_ALIVE)
        for look in every_second:
            try:
                look()
            except Exception:
                log.exception("a look of every second failed; it goes on")
