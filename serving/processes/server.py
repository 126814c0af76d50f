"""The process's life: listen, follow the rollouts, answer, and leave nothing open at the end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import psutil
from prometheus_client import CollectorRegistry

from homeostat.auth import Keyring, Meter
from homeostat.errors import Unavailable
from homeostat.key_watch import KeyWatch
from homeostat.metrics import Instruments
from homeostat.settings import Settings
from serving.counting.machine import Machine
from serving.counting.nameless import nameless
from serving.doors.peers import Alone, Peers, Worker, check_ready
from serving.http.acceptor import Acceptor
from serving.http.http_server import Certificate, Server, sweep, uvicorn_config
from serving.processes.assembly import (
    OpenJournal,
    make_front,
    make_grpc,
    make_models,
    make_traces,
)
from serving.processes.hangup import watch_terminal
from serving.processes.rereading import Reread, read_again
from serving.requests.limits import Buckets
from serving.sharing.line import Line
from serving.sharing.listening import address, announced, listen
from serving.sharing.seats import Seats
from serving.versions.follower import Follower
from serving.versions.served_model import ServedModel

log = logging.getLogger(__name__)

STORED = 33.0  # seconds; the journal's own limit is 30, unless the storage hangs
SOON = 2.0  # seconds, for the last traces to be taken


@dataclass(frozen=True, kw_only=True)
class Place:
    """Of a worker among others; what it was given by its supervisor."""

    number: int
    count: int  # of all places
    listener: socket.socket
    guarded: Sequence[int]  # numbers of the projects that have to have keys
    seats: Seats
    buckets: Buckets
    line: socket.socket


async def serve(
    projects: Sequence[Settings],
    open_journal: OpenJournal,
    reread: Reread,
    place: Place | None = None,
) -> None:
    """Until a signal comes; or, in a place among other workers, until the supervisor says so.
    `reread`: the settings as they are by then."""
    process = _Process(projects, open_journal, reread, place)
    async with contextlib.AsyncExitStack() as whole:
        if place is not None:
            await process.connect(place, whole)
        async with contextlib.AsyncExitStack() as stack:
            await process.begin(stack)
            await process.server.serve(sockets=process.listeners)
        if process.line is not None:
            await _tell_last(process.line, process.own)
    log.info("ended; everything logged is in the journal")


class _Process:
    """What one process has, put together."""

    server: Server

    def __init__(
        self,
        projects: Sequence[Settings],
        open_journal: OpenJournal,
        reread: Reread,
        place: Place | None,
    ) -> None:
        self.projects, self.reread, self.place = projects, reread, place
        self.serving = projects[0].serving
        self.certificate = Certificate(self.serving)
        self.grpc_certificate = Certificate(self.serving, "h2")
        registry = CollectorRegistry()
        self.instruments = Instruments("server", registry)
        buckets = Buckets(time.monotonic) if place is None else place.buckets
        self.meter = buckets.charge
        self.traces = make_traces(self.serving, self.instruments)
        self.tracing = None if self.traces is None else self.traces.tracing
        guarded = () if place is None else place.guarded
        self.models = make_models(
            projects, self.instruments, open_journal, self.meter, self.tracing, guarded
        )
        self.machine = Machine(self.instruments, registry)
        self.own = Alone(self.models, registry, self._refresh)
        self.line: Line | None = None
        self.acceptor: Acceptor | None = None
        self.listeners: list[socket.socket] = []
        self.opened: list[ServedModel] = []  # their journals

    async def connect(self, place: Place, stack: contextlib.AsyncExitStack) -> None:
        self.line = await Line.over(place.line, self._told)
        _in_background(stack, self._end_with_supervisor(self.line))

    async def begin(self, stack: contextlib.AsyncExitStack) -> None:
        models = self.models
        if self.place is None:
            self.listeners = [listen(self.serving.host, self.serving.port)]
        self._make_server(self.own if self.line is None else Worker(self.line))
        for number in (signal.SIGTERM, signal.SIGINT):
            # before uvicorn listens to signals; and after, when it has drained and repeats them,
            # which would end us before the journal
            signal.signal(number, self._end)
        if self.traces is not None:
            self.traces.exporter.start()
            stack.push_async_callback(asyncio.to_thread, self.traces.exporter.stop, SOON)
        stack.push_async_callback(self._close)
        for model in models.values():
            await asyncio.to_thread(model.journal.start)
            self.opened.append(model)
        where = {}
        if self.beside is not None:
            await self.beside.start()
            stack.push_async_callback(self.beside.stop, 0.0)
            where["grpc"] = self.beside.address
        looks: list[Callable[[], None]] = [
            _key_watch(model, self.meter).look for model in models.values()
        ]
        if self.line is None:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, self._hung_up, watch_terminal(), looks)
            url = address(self.listeners[0], self.serving)
            stack.enter_context(announced(self.projects, {"url": url, **where}))
        else:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            _in_background(stack, self._tell_state(self.line))
        loading = asyncio.Lock()
        for model in models.values():
            _in_background(stack, Follower(model, models.values(), loading).follow())
        _in_background(stack, _tell_when_ready(models))
        within = self.serving.arrive_within.total_seconds()
        _in_background(stack, sweep(self.server, within, looks))

    def _make_server(self, peers: Peers) -> None:
        place, drain = self.place, self.serving.drain.total_seconds()
        if place is not None:
            self.acceptor = Acceptor(place.listener, place.seats, place.number, self._ready)
        refused = nameless(self.models, self.instruments)
        front = make_front(
            self.models,
            peers,
            host=self.serving.host,
            draining=lambda: self.server.should_exit,
            refused=refused,
            tracing=self.tracing,
        )
        ready = partial(check_ready, self.models, peers, lambda: self.server.should_exit)
        tls, shared = self.grpc_certificate.context, place is not None
        self.beside = make_grpc(
            self.models, self.serving, ready, tls, self.tracing, refused, shared=shared
        )
        config = uvicorn_config(front, front.doors, drain)
        self.server = Server(config, self.certificate, self.beside, self.acceptor, drain)

    def _refresh(self) -> None:
        """What is only counted when somebody looks."""
        gauge, connections = self.instruments.gauge, self.server.connections()
        busy = sum(connection.busy for connection in connections)
        count = len(connections)
        if self.beside is not None:
            count += self.beside.connections()
            busy += self.beside.in_flight()
        gauge("homeostat_connections").set(count)
        gauge("homeostat_in_flight_requests").set(busy)
        if self.line is None:
            gauge("homeostat_workers").set(1)
            gauge("homeostat_workers_ready").set(self._ready())
        self.machine.refresh()

    def _end(self, *_: Any) -> None:
        self.server.should_exit = True

    async def _close(self) -> None:
        left = self.server.left()
        closing = (_close(model, left) for model in self.opened)
        for error in await asyncio.gather(*closing, return_exceptions=True):
            if error is not None:
                raise error

    def _ready(self) -> bool:
        return not any(model.waits_for for model in self.models.values())

    def _hung_up(
        self, terminal_is_gone: Callable[[], bool], looks: Sequence[Callable[[], None]]
    ) -> None:
        if terminal_is_gone():
            self.server.should_exit = True
        else:
            certificates = self.certificate, self.grpc_certificate
            read_again(certificates, looks, self.projects, self.reread)

    # A worker and its supervisor
    async def _told(self, what: str, told: Any) -> Any:
        match what:
            case "snapshot":
                return msgspec.to_builtins(await self.own.snapshot(), builtin_types=(bytes,))
            case "flush":
                return await self.own.flush(told)
            case "leave":
                self.server.leave()
        return None

    async def _tell_state(self, line: Line) -> None:
        told: tuple[bool, str, bool] | None = None
        while True:
            waits = [model for model in self.models.values() if model.waits_for]
            problem = "; ".join(model.waits_for for model in waits)
            failed = any(model.problem for model in waits if model.current is None)
            if (state := (not waits, problem, failed)) != told:
                if self.acceptor is not None:  # the others leave connections to who is ready
                    self.acceptor.publish()
                with contextlib.suppress(Unavailable):
                    await line.ask("state", state)
                    told = state
            await asyncio.sleep(0.02 if waits else 0.5)

    async def _end_with_supervisor(self, line: Line) -> None:
        await line.run()
        log.error("the supervisor is gone; its workers end with it")
        os._exit(1)


async def _tell_last(line: Line, own: Alone) -> None:
    """What was counted, once there is no more to come."""
    with contextlib.suppress(Unavailable):
        last = msgspec.to_builtins(await own.snapshot(), builtin_types=(bytes,))
        await line.ask("last", last)


def _key_watch(model: ServedModel, meter: Meter) -> KeyWatch:
    def take(keys: Keyring) -> None:
        model.keys = keys

    return KeyWatch(model.settings.keys_path, model.keys, meter, take)


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


def _in_background(stack: contextlib.AsyncExitStack, work: Any) -> None:
    """Until the end of the block."""
    task = asyncio.ensure_future(work)

    async def cancel() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(cancel)


async def _close(model: ServedModel, within: float) -> None:
    await model.close(within)
    try:
        await asyncio.wait_for(asyncio.to_thread(model.journal.close), STORED)
    except TimeoutError:
        log.error("%s: its rows stay in the spool: the storage hangs", model.name)
