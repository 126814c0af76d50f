"""Keeps the processes of one project running: server, loop, MLflow's UI."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

BACK_OFF = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
PR_SET_PDEATHSIG = 1
LARGEST_LOG = 20 * 10**6
STEADY = 60.0  # a process that lived so long starts its back-off anew


@dataclass
class Supervised:
    """One process, started again when it ends."""

    name: str
    command: Sequence[str]
    log_file: Path
    patience: float = 30.0  # seconds from SIGTERM to SIGKILL
    nice: int = 0
    environ: Mapping[str, str] = field(default_factory=dict)  # besides ours
    when: Callable[[], bool] = lambda: True  # not started before
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    started_at: float = 0.0
    start_at: float = field(default=0.0)


class Supervisor:
    """Starts in the order given, stops in the reverse one."""

    def __init__(self, processes: Sequence[Supervised], environ: Mapping[str, str]) -> None:
        self.processes = processes
        self._environ = dict(environ)

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; then every process is asked to end, and waited for."""
        try:
            while not stop.is_set():
                for supervised in self.processes:
                    self._look_after(supervised, time.monotonic())
                stop.wait(0.2)
        finally:
            self.stop()

    def stop(self) -> None:
        for supervised in reversed(self.processes):
            process = supervised.process
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for supervised in reversed(self.processes):
            _wait(supervised)

    def _look_after(self, supervised: Supervised, now: float) -> None:
        process = supervised.process
        if process is not None and process.poll() is not None:
            if now - supervised.started_at > STEADY:
                supervised.failures = 0
            pause = BACK_OFF[min(supervised.failures, len(BACK_OFF) - 1)]
            log.warning(
                "%s ended with status %s; starting it again in %g s. Its log: %s",
                supervised.name,
                process.returncode,
                pause,
                supervised.log_file,
            )
            supervised.failures += 1
            supervised.start_at = now + pause
            supervised.process = None
        if supervised.process is None and now >= supervised.start_at and supervised.when():
            supervised.started_at = now
            supervised.process = self._start(supervised)

    def _start(self, supervised: Supervised) -> subprocess.Popen[bytes]:
        supervised.log_file.parent.mkdir(parents=True, exist_ok=True)
        _rotate(supervised.log_file)
        with supervised.log_file.open("ab") as output:
            process = subprocess.Popen(
                supervised.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**self._environ, **supervised.environ},
                start_new_session=True,  # Ctrl-C is for us; we end them in order
                preexec_fn=_end_with_us,
            )
        if supervised.nice:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, supervised.nice)
        return process


def _end_with_us() -> None:
    """In the child: have the kernel send SIGTERM when we die, even by kill -9 (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _rotate(log_file: Path) -> None:
    """At a start; one older log is kept."""
    if log_file.exists() and log_file.stat().st_size > LARGEST_LOG:
        log_file.replace(log_file.with_suffix(".1.log"))


def _wait(supervised: Supervised) -> None:
    process = supervised.process
    if process is None:
        return
    try:
        process.wait(supervised.patience)
    except subprocess.TimeoutExpired:
        log.warning("%s did not end in %g s; killing it.", supervised.name, supervised.patience)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
