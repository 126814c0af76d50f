"""Children end with their parent, within their time, and are started again when they must live."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from homeostat.executor import Exit, LocalExecutor, read_exit
from loop.supervisor import Supervised, Supervisor

T = TypeVar("T")
LONG = "import time; time.sleep(600)"


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    made = LocalExecutor(os.environ)
    yield made
    made.close()


def run(executor: LocalExecutor, folder: Path, program: str, limit: float = 60) -> Exit:
    executor.start_program("one", [sys.executable, "-c", program], folder=folder, limit=limit)
    return until(lambda: executor.poll("one"))


def until(ask: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = ask()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come")


@pytest.mark.parametrize(
    ("program", "code"),
    [("print('fine')", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9)],
)
def test_how_a_program_ended_is_known(
    executor: LocalExecutor, tmp_path: Path, program: str, code: int
) -> None:
    """Its status, or the signal; also to a process that did not start it."""
    assert run(executor, tmp_path, program).code == code
    left = read_exit(tmp_path)
    assert left is not None
    assert left.code == code


def test_a_program_that_cannot_start_says_why(executor: LocalExecutor, tmp_path: Path) -> None:
    """A missing program is a status and a line, not a crash."""
    executor.start_program("one", ["no-such-program"], folder=tmp_path, limit=60)
    found = until(lambda: executor.poll("one"))
    assert found.code == 127
    assert "cannot start no-such-program" in found.tail


def test_a_program_that_takes_too_long_is_ended_with_its_children(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    """The whole process group goes, a child that ignores SIGTERM too."""
    ignores = "import os, signal; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True)"
    stubborn = f"{ignores}; {LONG}"
    program = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", {stubborn!r}])
{LONG}
"""
    for limit in (2, 8, 25):  # a busy machine may need longer to start them
        found = run(executor, tmp_path, program, limit)
        assert found.timed_out
        assert not found.ok
        if found.tail:
            break
    grandchild = int(found.tail.split()[0])
    until(lambda: not is_alive(grandchild))


def test_a_program_ends_with_the_process_that_wanted_it(tmp_path: Path) -> None:
    """Also when that process is killed and can say nothing; the work counts as not done."""
    parent = f"""
import os, sys, time
from pathlib import Path
from homeostat.executor import LocalExecutor
executor = LocalExecutor(os.environ)
program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
command = [sys.executable, "-c", program]
executor.start_program("one", command, folder=Path({str(tmp_path)!r}), limit=600)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", parent])
    log = tmp_path / "output.log"
    until(lambda: log.exists() and bool(log.read_text().strip()))
    child = int(log.read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: not is_alive(child))
    assert read_exit(tmp_path) is None


def test_a_process_that_dies_is_started_again(tmp_path: Path) -> None:
    """And all end when told to, in the reverse order."""
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    supervised = Supervised(
        name="one", command=[sys.executable, "-c", program], log_file=tmp_path / "one.log"
    )
    supervisor = Supervisor([supervised], os.environ)
    stop = threading.Event()
    thread = threading.Thread(target=supervisor.run, args=(stop,))
    thread.start()
    log = tmp_path / "one.log"
    try:
        until(lambda: log.exists() and len(log.read_text().split()) == 1)
        os.kill(int(log.read_text()), signal.SIGKILL)
        until(lambda: len(log.read_text().split()) == 2)
        second = int(log.read_text().split()[1])
        assert is_alive(second)
    finally:
        stop.set()
        thread.join()
    assert not is_alive(second)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
