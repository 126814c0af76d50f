"""What can go wrong under a prediction log, switched on and off while servers run.

As root on Linux the disk is a real one that is really full, and the folder really takes no new
file; without root, limits on the server's process come as near as they can.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import ROOT

DISK_MIB = 64
BUCKET = "journals"
STORE = ROOT / "tests" / "object_store_server.py"


@dataclass(frozen=True)
class Served:
    """A server that is to suffer: its project's folder and its process."""

    project: Path
    pid: int

    @property
    def spool(self) -> Path:
        return self.project / ".homeostat" / "spool"


Switch = Callable[[Sequence[Served]], None]


@dataclass(frozen=True, kw_only=True)
class Fault:
    name: str
    how: str
    folder: Path  # where the projects are to lie
    phases: Sequence[tuple[str, Switch]]  # one after the other, each as long
    end: Switch
    environ: Mapping[str, str] = field(default_factory=dict)  # of the servers and the readers
    journal: str = ""  # URL the tables lie under; default: in the project


@contextmanager
def disk_full(folder: Path) -> Iterator[Fault]:
    """The file system of spool and tables has no byte left."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = _run("mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(disk))
    ballast = disk / "ballast"
    try:
        yield Fault(
            name="disk full",
            how="a file system of its own, filled up" if mounted else "RLIMIT_FSIZE of the process",
            folder=disk,
            phases=[("full", (lambda _: _fill(ballast)) if mounted else _no_growth)],
            end=(lambda _: ballast.unlink()) if mounted else _growth,
        )
    finally:
        if mounted:
            _run("umount", str(disk))


@contextmanager
def read_only(folder: Path) -> Iterator[Fault]:
    """No file can be made in the spool, or removed from it."""
    place = folder / "read-only"
    place.mkdir()
    rooted = os.geteuid() == 0  # whom permissions do not hold back
    try:
        yield Fault(
            name="read-only spool",
            how="chattr +i" if rooted else "chmod a-w",
            folder=place,
            phases=[("read-only", lambda servers: _protect(servers, rooted, on=True))],
            end=lambda servers: _protect(servers, rooted, on=False),
        )
    finally:
        if rooted:
            _run("chattr", "-R", "-i", str(place))


@contextmanager
def store_away(folder: Path) -> Iterator[Fault]:
    """The object store of the tables answers 500, and then nothing at all."""
    place = folder / "store"
    place.mkdir()
    store = subprocess.Popen(
        [sys.executable, "-P", str(STORE), "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def behave(mode: str) -> None:
        assert store.stdin is not None
        assert store.stdout is not None
        store.stdin.write(f"{mode}\n")
        store.stdin.flush()
        store.stdout.readline()

    def end(_: Sequence[Served]) -> None:
        store.send_signal(signal.SIGCONT)
        behave("fine")

    try:
        assert store.stdout is not None
        url = f"http://127.0.0.1:{int(store.stdout.readline())}"
        with urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT")):
            pass
        yield Fault(
            name="object store away",
            how="an S3 server (moto's) answers 500 to everything, then is stopped in its tracks",
            folder=place,
            phases=[
                ("status 500", lambda _: behave("500")),
                ("hangs", lambda _: store.send_signal(signal.SIGSTOP)),
            ],
            end=end,
            environ={
                "AWS_ENDPOINT_URL": url,
                "AWS_ALLOW_HTTP": "true",
                "AWS_ACCESS_KEY_ID": "somebody",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_REGION": "us-east-1",
            },
            journal=f"s3://{BUCKET}",
        )
    finally:
        store.kill()
        store.communicate()


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def _no_growth(servers: Sequence[Served]) -> None:
    for server in servers:
        _, most = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, most))


def _growth(servers: Sequence[Served]) -> None:
    for server in servers:
        _, most = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (most, most))


def _protect(servers: Sequence[Served], rooted: bool, *, on: bool) -> None:
    for server in servers:
        for folder, _, _ in os.walk(server.spool):
            if not rooted:
                Path(folder).chmod(0o555 if on else 0o755)
            elif not _run("chattr", "+i" if on else "-i", folder):
                raise SystemExit(f"chattr does not work on {folder}: use a file system that has it")


def _run(*command: str) -> bool:
    with suppress(FileNotFoundError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False
