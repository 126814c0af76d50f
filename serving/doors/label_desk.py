"""Labels of one model on their way to the disk: in threads of their own, and only so many at once.

A label is answered once it is on the disk, and a disk may hang. What waits for it may fill neither
the memory nor the threads that everything else needs, and no request may block the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from homeostat.errors import JournalUnavailable
from homeostat.journal.spooling.room import Room
from homeostat.records import Label, Task
from serving.requests.labels import read_labels
from serving.requests.problem import Overloaded

THREADS = 4
MOST_REQUESTS = 64  # that wait or are being stored
MOST_BYTES = 64_000_000  # of their bodies
DEADLINE = 20.0  # seconds


class LabelDesk:
    """Used from the event loop's thread."""

    def __init__(
        self,
        store: Callable[[Sequence[Label]], None],
        task: Task,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._task = task
        self._now = now
        self._room = Room(MOST_BYTES)
        self._threads = ThreadPoolExecutor(THREADS, "labels")  # starts none before it is used

    async def take(self, body: bytes) -> int:
        """How many labels of a request are stored now. Raises Overloaded at once where too many
        requests wait, and JournalUnavailable where the disk takes too long: then its labels may
        be stored later, which does no harm to those who send them again."""
        size = max(len(body), MOST_BYTES // MOST_REQUESTS)
        if not self._room.take(size, 1):
            raise Overloaded(f"{self._room.rows} requests with labels wait already; try again")
        stored = self._threads.submit(self._read_and_store, body)
        stored.add_done_callback(lambda _: self._room.give(size, 1))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(stored), DEADLINE)
        except TimeoutError:
            raise JournalUnavailable(
                f"the disk did not take the labels within {DEADLINE:g} s; send them again"
            ) from None

    def _read_and_store(self, body: bytes) -> int:
        labels = read_labels(body, self._task, self._now())
        self._store(labels)
        return len(labels)
