"""A child that outlives neither the process that wanted it nor its time.

The loop starts every program through `python -m homeostat.leash`, which keeps the program in a
process group of its own and ends the whole group when its own standard input closes (the loop was
killed) or the time is up. Whoever comes later reads exit.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

EXIT = "exit.json"
OUTPUT = "output.log"
GRACE = 5.0


def main(argv: Sequence[str]) -> int:
    """FOLDER SECONDS PROGRAM [ARGUMENT …]"""
    folder, limit, command = Path(argv[0]), float(argv[1]), list(argv[2:])
    with (folder / OUTPUT).open("ab") as output:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            output.write(f"cannot start {command[0]}: {error.strerror}\n".encode())
            return _write_exit(folder, code=127, timed_out=False)
    threading.Thread(target=_end_with_parent, args=(child,), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: _end(child))
    timed_out = False
    try:
        child.wait(limit)
    except subprocess.TimeoutExpired:
        timed_out = True
        _end(child)
    _signal_group(child, signal.SIGKILL)  # what the program itself left behind
    return _write_exit(folder, code=child.wait(), timed_out=timed_out)


def _end_with_parent(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1024):  # not sys.stdin: a thread inside its lock breaks the exit
        pass
    _signal_group(child, signal.SIGKILL)
    os._exit(1)  # no exit.json: the work counts as not done


def _end(child: subprocess.Popen[bytes]) -> None:
    _signal_group(child, signal.SIGTERM)
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        _signal_group(child, signal.SIGKILL)


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def _write_exit(folder: Path, *, code: int, timed_out: bool) -> int:
    partial = folder / f".{EXIT}.part"
    partial.write_text(json.dumps({"code": code, "timed_out": timed_out}))
    partial.replace(folder / EXIT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
