"""The gRPC server's life beside the HTTP server's; it is imported only where it is asked for."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from homeostat.errors import SettingsError
from serving.sharing.listening import BACKLOG
from serving.versions.served_model import ServedModel

_PORT = "serving.grpc_port"
KEEP_ALIVE = 3600.0  # seconds; clients of gRPC keep a channel open between calls


class Answering(Protocol):
    """What http2.server.Http2Server does."""

    async def start(self) -> None: ...

    async def stop(self, grace: float) -> None: ...


class GrpcServer:
    """Listens from `start` on; `stop` takes no new calls and waits for the open ones."""

    def __init__(self, server: Answering, address: str) -> None:
        self._server = server
        self.address = address

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace: float) -> None:
        await self._server.stop(grace)


def make_grpc_server(
    models: Mapping[str, ServedModel],
    host: str,
    port: int,
    *,
    check: Callable[[str | None], None],
    ready: Callable[[], Awaitable[None]],
    shared: bool = False,
    tls: ssl.SSLContext | None = None,
) -> GrpcServer:
    """Bound, not started yet; port 0 takes any free one. `shared`: other processes listen on the
    same port. Raises SettingsError."""
    try:
        from serving.doors.grpc_calls import InferenceCalls
        from serving.http2.server import Http2Server
    except ImportError as error:
        raise SettingsError(
            f"gRPC is not installed ({error}); pip install 'homeostat[grpc]'", key=_PORT
        ) from None
    calls = InferenceCalls(models, check, ready, asyncio.get_running_loop())
    listener = _listen(host, port, shared=shared)
    arrive = max(model.settings.serving.arrive_within for model in models.values())
    server = Http2Server(
        listener, calls, arrive_within=arrive.total_seconds(), keep_alive=KEEP_ALIVE, tls=tls
    )
    shown = f"[{host}]" if ":" in host else host
    return GrpcServer(server, f"{shown}:{listener.getsockname()[1]}")


def _listen(host: str, port: int, *, shared: bool) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=shared)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host}:{port} ({error.strerror}); is another server running?",
            key=_PORT,
        ) from None
