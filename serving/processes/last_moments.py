"""Between the end of a process's work and its own: Python takes itself down."""

from __future__ import annotations

import logging
import os
import signal
import threading

log = logging.getLogger(__name__)

LONGEST = 5.0  # seconds


def end_soon(status: int, within: float = LONGEST) -> None:
    """Called when all is done, before the process exits with that status.

    What all is done for is not ended once more: signals to end are ignored from here on. Python
    puts back what they do by default before it unloads what was imported, which takes a while: one
    that comes then would make an orderly end look like a death. Nor does it last for ever: Python
    waits for threads, and calls what asked to be called at its exit. Where that takes more than so
    many seconds, the process ends without.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    timer = threading.Timer(within, _end_now, (status, within))
    timer.daemon = True
    timer.start()


def _end_now(status: int, within: float) -> None:
    main = threading.main_thread()
    left = [each.name for each in threading.enumerate() if not each.daemon and each is not main]
    log.error(
        "all is done, and after %g s Python still waits for %s: the process ends without",
        within,
        f"threads ({', '.join(left)})" if left else "what is to be called at its exit",
    )
    os._exit(status)
