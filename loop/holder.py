"""Who we are to other processes of ours, and whether such a one is still alive."""

from __future__ import annotations

import os
import socket

import psutil


def holder_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def is_dead(holder: str) -> bool:
    """Whether a holder was a process of this machine that is no more: no need to wait for it."""
    host, _, pid = holder.rpartition(":")
    return host == socket.gethostname() and pid.isdigit() and not psutil.pid_exists(int(pid))
