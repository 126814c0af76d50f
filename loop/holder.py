"""Who we are to other processes of ours, and whether such a one is still alive."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil


def holder_name() -> str:
    return f"{_house()}:{os.getpid()}"


def is_dead(holder: str) -> bool:
    """Whether a holder was a process of this machine that is no more: no need to wait for it.

    Process ids mean something only among those who see the same ones: of another machine or
    container nothing is known but when its lease runs out.
    """
    house, _, pid = holder.rpartition(":")
    return house == _house() and pid.isdigit() and not psutil.pid_exists(int(pid))


def _house() -> str:
    try:
        space = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        space = ""
    return f"{socket.gethostname()}:{int(psutil.boot_time())}:{space}"
