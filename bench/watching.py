"""Waiting for the kernel to say that something changed in a folder (inotify)."""

from __future__ import annotations

import ctypes
import os
import select
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

CREATED = 0x100 | 0x80  # made in the folder, or moved into it
DELETED = 0x200


@contextmanager
def watched(folders: Iterable[Path], what: int) -> Iterator[int]:
    """A handle that `happened` waits on."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        for folder in folders:
            if libc.inotify_add_watch(handle, os.fsencode(folder), what) < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)
        yield handle
    finally:
        os.close(handle)


def happened(handle: int, seconds: float) -> bool:
    """Within so many seconds; at once when it did."""
    return bool(select.select([handle], [], [], seconds)[0])
