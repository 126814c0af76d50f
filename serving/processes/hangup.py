"""SIGHUP says two things: read the settings again; or, the terminal was closed, which ends us."""

from __future__ import annotations

import os
from collections.abc import Callable


def watch_terminal() -> Callable[[], bool]:
    """Asked at a SIGHUP: whether the terminal that was there now is gone since."""
    had = _has_terminal()
    return lambda: had and not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
