"""The gRPC server's life beside the HTTP server's; gRPC is imported only where it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from homeostat.errors import SettingsError
from serving.served_model import ServedModel

_PORT = "serving.grpc_port"
PAUSE = 0.2  # seconds in which new calls are told that the server goes down


class GrpcServer:
    """Listens from `start` on; `stop` takes no new calls and waits for the open ones."""

    def __init__(self, server: Any, service: Any, address: str) -> None:
        self._server = server
        self._service = service
        self.address = address

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace: float) -> None:
        # gRPC cancels calls that come in at the very moment it ends; by then, callers know
        self._service.leaving = True
        await asyncio.sleep(min(grace, PAUSE))
        await self._server.stop(grace)


def make_grpc_server(
    models: Mapping[str, ServedModel],
    host: str,
    port: int,
    *,
    check: Callable[[str | None], None],
    draining: Callable[[], bool],
) -> GrpcServer:
    """Bound, not started yet; port 0 takes any free one. Raises SettingsError."""
    try:
        from grpc import aio

        from serving.open_inference.grpc_service import Service
    except ImportError as error:
        raise SettingsError(
            f"gRPC is not installed ({error}); pip install 'homeostat[grpc]'", key=_PORT
        ) from None
    limit = max(int(model.settings.serving.max_body) for model in models.values())
    server = aio.server(
        options=[
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
    )
    service = Service(models, check, draining)
    server.add_generic_rpc_handlers((service.handler(),))
    shown = f"[{host}]" if ":" in host else host
    try:
        bound = server.add_insecure_port(f"{shown}:{port}")
    except RuntimeError as error:
        raise SettingsError(
            f"cannot listen on {shown}:{port} ({error}); is another server running?", key=_PORT
        ) from None
    return GrpcServer(server, service, f"{shown}:{bound}")
