"""Rows that were acknowledged and wait in the spool: none of them may miss a backup."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from homeostat.errors import JournalUnavailable
from homeostat.journal.delta.files import Progress
from homeostat.journal.spooling.spool import FLOOR
from homeostat.settings import Settings
from loop.server_door import flush_journal

SEGMENTS = "*.arrows"
LOCK = ".lock"
GRACE = timedelta(seconds=60)  # of a commit, after its time has come
PAUSE = 0.1


def settle(settings: Settings, take: Callable[[Path], None], progress: Progress) -> None:
    """Returns when each row acknowledged before the call is in the tables, or was handed to `take`.

    A server that runs is asked to store what it has, and else stores it in its own time. What a
    server left that runs no more is taken as it is: nobody adds to it. Raises JournalUnavailable.
    """
    waiting = _segments(settings)
    if not waiting:
        return
    flush_journal(settings)
    limit = (settings.journal.commit_every + GRACE).total_seconds()
    deadline, total = time.monotonic() + limit, len(waiting)
    while True:
        for folder in {segment.parent for segment in waiting}:
            with _claimed(folder) as claimed:
                if claimed:
                    left = [each for each in waiting if each.parent == folder and each.exists()]
                    for path in (*left, *([folder / FLOOR] if left else [])):
                        take(path)
                    waiting = [each for each in waiting if each.parent != folder]
        waiting = [segment for segment in waiting if segment.exists()]
        progress("rows on their way", total - len(waiting), total)
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise JournalUnavailable(
                f"rows wait in {waiting[0].parent} and the server did not store them within "
                f"{limit:g} s; its log says why"
            )
        time.sleep(PAUSE)


def owned(settings: Settings) -> list[Path]:
    """Folders of the spool that a process writes to."""
    found = []
    for folder in sorted((settings.spool_path / settings.model.name).glob("*/")):
        with _claimed(folder) as claimed:
            if not claimed:
                found.append(folder)
    return found


def _segments(settings: Settings) -> list[Path]:
    return sorted((settings.spool_path / settings.model.name).glob(f"*/{SEGMENTS}"))


@contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Keeps a server from starting on it meanwhile; False where one has."""
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
