"""Where heavy work runs: local child processes. (A Ray cluster will stand behind the same door.)"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

from homeostat import leash

TAIL_BYTES = 4000


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a program ended. The code is negative when a signal ended it."""

    code: int
    timed_out: bool = False
    tail: str = ""

    @property
    def ok(self) -> bool:
        return self.code == 0 and not self.timed_out

    def describe(self, limit: float) -> str:
        if self.timed_out:
            return f"did not end within its time limit of {limit:g} s"
        if self.code < 0:
            return f"was ended by signal {-self.code}"
        return f"exited with status {self.code}"


class LocalExecutor:
    """Starts programs and tells when they have ended; never waits.

    Programs end with this process, whatever ends it. `preload` names modules that jobs of ours
    find already imported: they are then forked from a process that holds them, which saves
    seconds a job and costs the memory once.
    """

    def __init__(self, environ: Mapping[str, str], preload: Sequence[str] = ()) -> None:
        self.environ = dict(environ)
        self._programs: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
        self._jobs: dict[str, tuple[BaseProcess, Path, float]] = {}
        self._forks = multiprocessing.get_context("forkserver") if preload else None
        if self._forks:
            self._forks.set_forkserver_preload(list(preload))
            forkserver.ensure_running()  # it imports while we do other things

    def start_program(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        limit: float,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start a program; its output goes to output.log in `folder`."""
        (folder / leash.EXIT).unlink(missing_ok=True)
        leashed = [sys.executable, "-P", "-m", "homeostat.leash", str(folder), str(limit)]
        process = subprocess.Popen(
            [*leashed, *command],
            stdin=subprocess.PIPE,
            env=dict(self.environ if environ is None else environ),
            cwd=cwd,
            start_new_session=True,  # a Ctrl-C in the terminal is for us, not for our children
        )
        self._programs[name] = (process, folder)

    def start_job(self, name: str, room: str, verb: str, *, folder: Path, limit: float) -> None:
        """Start `python -m ROOM VERB FOLDER` (homeostat/jobs.py)."""
        if self._forks is None:
            command = [sys.executable, "-P", "-m", room, verb, str(folder)]
            self.start_program(name, command, folder=folder, limit=limit)
            return
        job = self._forks.Process(target=_run_job, args=(room, verb, str(folder)), daemon=True)
        job.start()
        self._jobs[name] = (job, folder, time.monotonic() + limit)

    def poll(self, name: str) -> Exit | None:
        """None while it runs. Raises KeyError for a name this process did not start."""
        if name in self._jobs:
            return self._poll_job(name)
        process, folder = self._programs[name]
        if process.poll() is None:
            return None
        del self._programs[name]
        assert process.stdin is not None
        process.stdin.close()
        return read_exit(folder) or Exit(code=-9, tail=tail_of(folder))

    def names(self) -> list[str]:
        return [*self._programs, *self._jobs]

    def stop(self, name: str) -> None:
        """End it now; it is forgotten."""
        if name in self._jobs:
            job, _, _ = self._jobs.pop(name)
            _kill_group(job)
        elif name in self._programs:
            process, _ = self._programs.pop(name)
            assert process.stdin is not None
            process.stdin.close()  # the leash ends the program's whole group
            process.wait()

    def knows(self, name: str) -> bool:
        return name in self._programs or name in self._jobs

    def close(self) -> None:
        """End everything that still runs."""
        for name in self.names():
            self.stop(name)

    def _poll_job(self, name: str) -> Exit | None:
        job, folder, deadline = self._jobs[name]
        timed_out = job.is_alive() and time.monotonic() > deadline
        if timed_out:
            _kill_group(job)
        if job.is_alive():
            return None
        del self._jobs[name]
        return Exit(code=job.exitcode or 0, timed_out=timed_out, tail=tail_of(folder))


def read_exit(folder: Path) -> Exit | None:
    """How the program of this folder ended; None where nobody saw it end."""
    try:
        found = json.loads((folder / leash.EXIT).read_text())
    except FileNotFoundError:
        return None
    return Exit(code=found["code"], timed_out=found["timed_out"], tail=tail_of(folder))


def tail_of(folder: Path) -> str:
    """The last lines a program printed."""
    try:
        with (folder / leash.OUTPUT).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _kill_group(job: BaseProcess) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(job.pid or 0, signal.SIGKILL)
    job.kill()  # before it made a group of its own
    job.join()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)


def _run_job(room: str, verb: str, folder: str) -> None:
    """In the forked child: its output to the folder, then as `python -m ROOM` would."""
    os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    output = os.open(Path(folder) / leash.OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    main: Callable[[Sequence[str]], int] = import_module(f"{room}.__main__").main
    sys.exit(main([verb, folder]))
