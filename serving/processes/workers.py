"""`--workers N`: what the supervisor opens for its workers, and how it starts one."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from homeostat.auth import load_keys
from homeostat.settings import Settings, load
from serving.processes.open_port import check_port
from serving.processes.supervisor import supervise
from serving.requests import limits
from serving.sharing import seats
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
    for settings in projects:
        check_port(first, settings.model.name, load_keys(settings.keys_path))
        writer_id(settings.home)
    listener = listen(first.host, first.port)
    listener.setblocking(False)
    where, grpc = {"url": address(listener, first)}, None
    if first.grpc_port is not None:
        grpc = reserve(first.host, first.grpc_port)
        where["grpc"] = "{}:{}".format(*grpc.getsockname()[:2])
    descriptor = seats.make(limits.SIZE)
    given = {"supervisor": os.getpid(), "listener": listener.fileno(), "seats": descriptor}
    if grpc is not None:
        given["grpc-port"] = grpc.getsockname()[1]

    def start(slot: int, count: int, line: int) -> tuple[Sequence[str], Sequence[int]]:
        numbers = {"slot": slot, "count": count, "line": line, **given}
        return _command(folders, numbers), (listener.fileno(), descriptor)

    def reload() -> int:
        again = [load(path, environ) for path in folders]
        now = again[0].serving
        if (now.host, now.port, now.grpc_port) != (first.host, first.port, first.grpc_port):
            log.error("serving.host and the ports stay as they were until a restart")
        return wanted or now.workers

    count, drain = wanted or first.workers, first.drain.total_seconds()
    well = supervise(count, drain, start, descriptor, reload, announced(projects, where))
    return 0 if well else 1


def _command(folders: Sequence[Path], numbers: Mapping[str, int]) -> Sequence[str]:
    command = [sys.executable, "-P", "-m", "serving.processes.worker"]
    for folder in folders:
        command += ["--project", str(folder)]
    for name, number in numbers.items():
        command += [f"--{name}", str(number)]
    return command
