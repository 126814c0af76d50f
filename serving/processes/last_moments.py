"""Between the end of a process's work and its own: Python takes itself down."""

from __future__ import annotations

import signal


def ignore_signals() -> None:
    """What all is done for is not ended once more. Python puts back what signals do by default
    before it unloads what was imported, which takes a while: one that comes then would make an
    orderly end look like a death."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
