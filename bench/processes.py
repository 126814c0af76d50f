"""Child processes: started clean, measured with all their children, ended for certain."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
PATIENCE = 20.0  # seconds between SIGTERM and SIGKILL
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one process took from its start to its end."""

    wall: float
    cpu: float
    peak_mib: float


def environment(**more: str) -> Mapping[str, str]:
    """Ours without what would reach into a measurement; one thread of arithmetic a process."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HOMEOSTAT_", "MLFLOW_", "PYTHON"))
    }
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1", **more}


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def call(*arguments: str) -> None:
    """A module or script of ours to its end, with this repository on its path."""
    done = subprocess.run(
        python(*arguments),
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"python {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")


def measure(command: Sequence[str], environ: Mapping[str, str], log: Path) -> Cost:
    """Run to the end. Raises SystemExit with the last lines of the output where it fails."""
    began = time.perf_counter()
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        # unlike psutil's, these are exact: the kernel adds them up at the process's end
        _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")
    return Cost(wall=wall, cpu=used.ru_utime + used.ru_stime, peak_mib=used.ru_maxrss * 1024 / _MIB)


@contextmanager
def running(
    command: Sequence[str], environ: Mapping[str, str], log: Path
) -> Iterator[psutil.Process]:
    """A process that stays until the end of the block, and nothing of it after."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield psutil.Process(child.pid)
    finally:
        child.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # its children, where it left any
        child.wait()


def cpu_seconds(process: psutil.Process) -> float:
    """Of the process and all below it that live."""
    times = [member.cpu_times() for member in _tree(process)]
    return sum(each.user + each.system for each in times)


def memory_mib(process: psutil.Process) -> float:
    """Resident, of the process and all below it; what they share is divided among them."""
    return float(sum(member.memory_full_info().pss for member in _tree(process)) / _MIB)


def own_mib(process: psutil.Process) -> float:
    """Memory that belongs to the process and all below it alone. Unlike `memory_mib` it does not
    change with who else has the same libraries mapped, so it tells of growth."""
    rollups = [Path(f"/proc/{member.pid}/smaps_rollup") for member in _tree(process)]
    lines = [line.split() for rollup in rollups for line in rollup.read_text().splitlines()]
    return sum(int(line[1]) for line in lines if line[0] == "Anonymous:") / 1024


def _tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]
