"""`--workers N`: what the supervisor opens for its workers, and how it starts one."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from homeostat.settings import Settings, load
from homeostat.settings_of_serving import ServingSettings
from serving.processes.guarded import Guarded
from serving.processes.opened import Opened, opened, speaks_tls
from serving.processes.supervisor import Crew, supervise
from serving.requests import limits
from serving.sharing import seats
from serving.sharing.certificate_pair import load_pair
from serving.sharing.listening import address, announced, listen, reserve
from serving.sharing.writer_id import writer_id

log = logging.getLogger("serving")


def supervise_workers(
    folders: Sequence[Path],
    projects: Sequence[Settings],
    wanted: int | None,
    environ: Mapping[str, str],
) -> int:
    """The status of the whole. `wanted`: how many workers, whatever the settings say. Raises
    HomeostatError where the settings do not allow a start."""
    first = projects[0].serving
    guarded = Guarded()
    guarded.take(projects, first)
    for settings in projects:
        writer_id(settings.home)
    listener = listen(first.host, first.port)
    listener.setblocking(False)
    where, grpc, grpc_port = {"url": address(listener, first)}, None, None
    if first.grpc_port is not None:
        grpc = reserve(first.host, first.grpc_port)
        where["grpc"] = "{}:{}".format(*grpc.getsockname()[:2])
        grpc_port = grpc.getsockname()[1]
    port = opened(listener, grpc_port, tls=speaks_tls(first))
    descriptor = seats.make(limits.SIZE)
    given = {"supervisor": os.getpid(), "listener": listener.fileno(), "seats": descriptor}

    def start(slot: int, count: int, line: int) -> tuple[Sequence[str], Sequence[int]]:
        numbers = {"slot": slot, "count": count, "line": line, **given}
        command = _command(folders, numbers, port, guarded.numbers())
        return command, (listener.fileno(), descriptor)

    def reload() -> Crew:
        again = [load(path, environ) for path in folders]
        now = again[0].serving
        if (now.host, now.port, now.grpc_port) != (first.host, first.port, first.grpc_port):
            log.error("serving.host and the ports stay as they were until a restart")
        held = port.hold(now)
        # what would not allow a restart is no reload either
        if now.tls_certificate is not None:
            load_pair(now.tls_certificate, now.tls_key)
        guarded.take(again, held, *([now] if now.host != first.host else []))
        return _crew(now, wanted)

    crew = _crew(first, wanted)
    listening = announced(projects, where)
    well = supervise(crew, start, descriptor, reload, guarded.look, listening)
    return 0 if well else 1


def _crew(serving: ServingSettings, wanted: int | None) -> Crew:
    return Crew(count=wanted or serving.workers, drain=serving.drain.total_seconds())


def _command(
    folders: Sequence[Path], numbers: Mapping[str, int], port: Opened, guarded: Sequence[int]
) -> Sequence[str]:
    command = [sys.executable, "-P", "-m", "serving.processes.worker"]
    for folder in folders:
        command += ["--project", str(folder)]
    for name, number in numbers.items():
        command += [f"--{name}", str(number)]
    if port.grpc_port is not None:
        command += ["--grpc-port", str(port.grpc_port)]
    if port.tls:
        command.append("--tls")
    for number in guarded:
        command += ["--guarded", str(number)]
    return command
