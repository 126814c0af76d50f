"""The process's life: listen, follow the rollouts, answer, and leave nothing open at the end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import psutil
import uvicorn
from prometheus_client import CollectorRegistry

from homeostat.auth import load_keys, require_keys_beyond_loopback
from homeostat.errors import SettingsError
from homeostat.jobs import write_atomically
from homeostat.journal.writer import JournalWriter
from homeostat.metrics import Instruments
from homeostat.records import Task
from homeostat.settings import ServingSettings, Settings
from serving.admin_app import allow_any, make_app
from serving.asgi import AsgiApp, Front
from serving.connection import Connection
from serving.door import Door
from serving.follower import Follower
from serving.measuring import Measuring
from serving.open_inference.grpc_server import GrpcServer, make_grpc_server
from serving.served_model import ServedModel

log = logging.getLogger(__name__)

BACKLOG = 2048
KEEP_ALIVE = 75  # seconds; longer than a usual load balancer's 60, so that it closes first
SWEEP = 1.0  # seconds between two looks at all connections
ANNOUNCEMENT = "serving.json"


OpenJournal = Callable[[Settings], JournalWriter]


def make_models(
    projects: Sequence[Settings], instruments: Instruments, open_journal: OpenJournal
) -> dict[str, ServedModel]:
    """The models of some projects, each with a journal of its own; not started yet."""
    models: dict[str, ServedModel] = {}
    for settings in projects:
        name = settings.model.name
        if name in models:
            raise SettingsError(f'two projects have a model named "{name}"', key="model.name")
        keys = load_keys(settings.keys_path)
        require_keys_beyond_loopback(projects[0].serving.host, keys, "serving")
        models[name] = ServedModel(
            settings=settings,
            keys=keys,
            journal=open_journal(settings),
            measuring=Measuring(
                instruments, name, classes=settings.model.task is Task.CLASSIFICATION
            ),
            now_us=lambda: time.time_ns() // 1000,
        )
    return models


def make_front(
    models: Mapping[str, ServedModel],
    registry: CollectorRegistry,
    *,
    host: str,
    draining: Callable[[], bool],
) -> Front:
    app = make_app(models, registry, open_to_others=not is_loopback(host), draining=draining)
    return Front(models, app)


async def serve(projects: Sequence[Settings], open_journal: OpenJournal) -> None:
    """Until a signal comes."""
    first = projects[0]
    registry = CollectorRegistry()
    models = make_models(projects, Instruments("server", registry), open_journal)
    listener = listen(first.serving.host, first.serving.port)
    server: Server
    front = make_front(
        models, registry, host=first.serving.host, draining=lambda: server.should_exit
    )
    beside = _grpc_server(models, first.serving, lambda: server.should_exit)
    drain = first.serving.drain.total_seconds()
    server = Server(uvicorn_config(front, front.doors, drain), beside, drain)
    _ignore_signals_that_uvicorn_repeats()
    async with contextlib.AsyncExitStack() as stack:
        for model in models.values():
            await asyncio.to_thread(model.journal.start)
            stack.push_async_callback(_close, model)
        url = address(listener)
        where = {"url": url}
        if beside is not None:
            await beside.start()
            stack.push_async_callback(beside.stop, 0.0)
            where["grpc"] = beside.address
        for settings in projects:
            stack.callback(_withdraw, _announce(settings.home, where))
        sys.stdout.write(json.dumps({"event": "listening", **where}) + "\n")
        sys.stdout.flush()
        tasks = [asyncio.create_task(Follower(model).follow()) for model in models.values()]
        tasks.append(asyncio.create_task(_tell_when_ready(models)))
        tasks.append(
            asyncio.create_task(_sweep(server, first.serving.arrive_within.total_seconds()))
        )
        stack.push_async_callback(_cancel, tasks)
        await server.serve(sockets=[listener])
    log.info("ended; everything logged is in the journal")


class Server(uvicorn.Server):
    """Both servers stop taking requests at once, and wait for the open ones."""

    def __init__(self, config: uvicorn.Config, beside: GrpcServer | None, drain: float) -> None:
        super().__init__(config)
        self._beside = beside
        self._drain = drain

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._beside is None:
            await super().shutdown(sockets)
        else:
            await asyncio.gather(super().shutdown(sockets), self._beside.stop(self._drain))


def _grpc_server(
    models: Mapping[str, ServedModel], serving: ServingSettings, draining: Callable[[], bool]
) -> GrpcServer | None:
    if serving.grpc_port is None:
        return None

    def check(authorization: str | None) -> None:
        if not is_loopback(serving.host):
            allow_any(models, authorization)

    return make_grpc_server(models, serving.host, serving.grpc_port, check=check, draining=draining)


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


def listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host}:{port} ({error.strerror}); is another server running?",
            key="serving.port",
        ) from None


def address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    # what listens everywhere is reached from this machine by loopback
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _announce(home: Path, where: Mapping[str, str]) -> Path:
    path = home / ANNOUNCEMENT
    home.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({**where, "pid": os.getpid()}).encode())
    return path


def _withdraw(path: Path) -> None:
    """Unless another server has announced itself there since."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        if json.loads(path.read_text())["pid"] == os.getpid():
            path.unlink()


def _ignore_signals_that_uvicorn_repeats() -> None:
    """uvicorn raises a signal again once it has drained, which would end us before the journal."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)


async def _tell_when_ready(models: Mapping[str, ServedModel]) -> None:
    while any(model.current is None for model in models.values()):
        await asyncio.sleep(0.02)
    versions = ", ".join(
        f"model {name} version {model.ready().ref.version}" for name, model in models.items()
    )
    age = time.time() - psutil.Process().create_time()  # the wait for a first version too
    log.info("ready in %.1f s (%s)", age, versions)
    gc.collect()
    gc.freeze()  # what was loaded stays: collections need not walk it again


async def _sweep(server: uvicorn.Server, request_within: float) -> None:
    """End connections that nobody uses, and requests that do not arrive."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(SWEEP)
        now = loop.time()
        for connection in list(server.server_state.connections):
            if isinstance(connection, Connection):
                connection.end_if_overdue(now, request=request_within, idle=KEEP_ALIVE)


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _close(model: ServedModel) -> None:
    await model.close()
    await asyncio.to_thread(model.journal.close)
