"""Programs of the prediction log that are killed, and what they had acknowledged by then."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = str(Path(__file__).parent)


def child(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": HERE},
    )


def until_killed(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """What it printed until it was killed, so many seconds after its first line."""
    assert process.stdout is not None
    out = process.stdout.fileno()
    printed, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([out], [], [], max(deadline - time.monotonic(), 0))[0]:
            if not printed:
                deadline = time.monotonic() + seconds
            more = os.read(out, 1 << 20)
            assert more, "the child ended by itself"
            printed += more
    process.send_signal(signal.SIGKILL)
    printed += process.stdout.read()
    process.wait()
    process.stdout.close()
    return printed


def acknowledged(printed: bytes, kind: str) -> set[str]:
    whole = printed.decode().rpartition("\n")[0].splitlines()
    return {line.partition(" ")[2] for line in whole if line.startswith(kind)}
