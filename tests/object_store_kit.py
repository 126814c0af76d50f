"""An S3 server of our own on loopback, as a child process, for tests of journals that lie in it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BUCKET = "journals"


@dataclass(frozen=True)
class ObjectStore:
    port: int
    process: subprocess.Popen[str]

    @property
    def environ(self) -> dict[str, str]:
        return environ_of(self.port)

    def behave(self, mode: str) -> None:
        """One of the modes of object_store_server.py."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{mode}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == mode

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Connections are taken, and nothing is ever answered."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


def environ_of(port: int) -> dict[str, str]:
    """What users set for a store that is not Amazon's; read by the libraries alone."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def object_store(port: int = 0) -> Iterator[ObjectStore]:
    script = Path(__file__).with_name("object_store_server.py")
    process = subprocess.Popen(
        [sys.executable, "-P", str(script), str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        store = ObjectStore(int(process.stdout.readline()), process)
        bucket = f"http://127.0.0.1:{store.port}/{BUCKET}"
        with urllib.request.urlopen(urllib.request.Request(bucket, method="PUT")) as answer:
            assert answer.status == 200
        yield store
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
