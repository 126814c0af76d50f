"""One of several processes that share a port; started by the supervisor, never by a person."""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from homeostat.errors import HomeostatError
from homeostat.settings import Settings, load
from serving.processes.gpus import take_gpu
from serving.processes.last_moments import end_soon
from serving.processes.logs import configure_logging
from serving.processes.opened import Opened, opened
from serving.processes.slot import Slot
from serving.requests.limits import Buckets
from serving.sharing import seats
from serving.sharing.seats import Seats

log = logging.getLogger("serving")

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m serving.processes.worker", description=__doc__)
    parser.add_argument("--project", action="append", required=True, type=Path)
    for name in ("slot", "count", "line", "listener", "seats", "supervisor"):
        parser.add_argument(f"--{name}", required=True, type=int)
    parser.add_argument("--grpc-port", type=int)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--guarded", action="append", default=[], type=int)
    options = parser.parse_args(arguments)
    _end_with(options.supervisor)
    configure_logging(f"worker {options.slot} ")
    line, listener = socket.socket(fileno=options.line), socket.socket(fileno=options.listener)
    try:
        port = opened(listener, options.grpc_port, tls=options.tls)
        projects = _settings(options.project, port)
        projects = take_gpu(projects, options.slot, options.count, os.environ)
        # what takes time is imported once nothing speaks against a start
        from serving.processes.process import run
        from serving.processes.server import Place

        place = Place(
            number=options.slot,
            count=options.count,
            listener=listener,
            guarded=options.guarded,
            seats=Seats(options.seats),
            buckets=Buckets(time.monotonic, options.seats, seats.SIZE),
            line=line,
        )
        run(projects, os.environ, place=place)
    except HomeostatError as error:
        log.error("%s", error)
        return Slot.REFUSED
    return 0


def _settings(folders: Sequence[Path], port: Opened) -> list[Settings]:
    """As the files say, but for the port: they may have been changed since it was opened."""
    projects = [load(path, os.environ) for path in folders]
    first = projects[0]
    projects[0] = replace(first, serving=port.hold(first.serving))
    return projects


def _end_with(supervisor: int) -> None:
    """No worker outlives the supervisor, however that ends. Where the kernel cannot see to it, the
    end of the line does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it ended before
        sys.exit(1)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    end_soon(status)
    sys.exit(status)
