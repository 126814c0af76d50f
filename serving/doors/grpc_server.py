"""The gRPC server's life beside the HTTP server's; it is imported only where it is asked for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from homeostat.errors import SettingsError
from serving.sharing.listening import listen
from serving.tracing.tracing import Tracing
from serving.versions.served_model import ServedModel

_PORT = "serving.grpc_port"
Refused = Callable[[int, str], None]  # with HTTP's status, and the kind of problem
KEEP_ALIVE = 3600.0  # seconds; clients of gRPC keep a channel open between calls


class GrpcServer(Protocol):
    """What http2.server.Http2Server does; named here, since that one needs the extra `grpc`."""

    address: str

    async def start(self) -> None:
        """Listen."""
        ...

    async def stop(self, grace: float) -> None:
        """Take no new calls, and wait for the open ones."""
        ...

    def connections(self) -> int: ...

    def in_flight(self) -> int:
        """Calls."""
        ...


def make_grpc_server(
    models: Mapping[str, ServedModel],
    host: str,
    port: int,
    *,
    arrive_within: float,
    check: Callable[[str | None], None],
    ready: Callable[[], Awaitable[None]],
    refused: Refused,
    shared: bool = False,
    tls: ssl.SSLContext | None = None,
    tracing: Tracing | None = None,
) -> GrpcServer:
    """Bound, not started yet; port 0 takes any free one. `shared`: other processes listen on the
    same port. `refused` is told what is refused before its model is known. Raises SettingsError."""
    try:
        from serving.doors.grpc_calls import INFER, InferenceCalls
        from serving.http2.server import Http2Server
        from serving.tracing.calls import TracedCalls
    except ImportError as error:
        raise SettingsError(
            f"gRPC is not installed ({error}); pip install 'homeostat[grpc]'", key=_PORT
        ) from None
    calls = InferenceCalls(models, check, ready, refused, asyncio.get_running_loop())
    listener = listen(host, port, _PORT, shared=shared)
    shown = f"[{host}]" if ":" in host else host
    return Http2Server(
        listener,
        calls if tracing is None else TracedCalls(calls, INFER, tracing),
        address=f"{shown}:{listener.getsockname()[1]}",
        arrive_within=arrive_within,
        keep_alive=KEEP_ALIVE,
        tls=tls,
    )
