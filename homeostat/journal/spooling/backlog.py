"""Rows in memory that wait for the spool: durability "async"."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta

from homeostat.errors import JournalFull
from homeostat.journal.encoding.message import Encoded
from homeostat.journal.encoding.schema import EPOCH
from homeostat.journal.spooling.room import Room

logger = logging.getLogger(__name__)

REST = 0.02  # seconds; a row is in the spool 50 ms after it came, also on a busy machine
PIECE = 1_000_000  # bytes written at once


class Backlog:
    """Thread-safe; a thread of its own empties it. Rows that the spool does not take stay."""

    def __init__(self, limit: int, write: Callable[[Encoded], None], *, name: str) -> None:
        self.room = Room(limit)
        self.errors = 0
        self._write = write
        self._waiting: deque[tuple[Encoded, int]] = deque()
        self._draining = threading.Lock()
        self._some = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"journal backlog {name}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def add(self, rows: Encoded, time_us: int) -> None:
        """Raises JournalFull."""
        if not self.room.take(len(rows.data), rows.rows):
            raise JournalFull(
                f"{self.room.bytes:,} bytes wait in memory for the spool, and {self.room.limit:,} "
                "may (journal.memory): the spool's disk is slow or full"
            )
        self._waiting.append((rows, time_us))
        if not self._some.is_set():
            self._some.set()

    def oldest(self) -> datetime | None:
        try:
            return EPOCH + timedelta(microseconds=self._waiting[0][1])
        except IndexError:
            return None

    def drain(self) -> None:
        """All that waits now is in the spool; or JournalUnavailable, and it still waits."""
        with self._draining:  # so that rows keep their order
            while self._waiting:
                piece, taken = self._piece()
                self._write(piece)
                for _ in range(taken):
                    self._waiting.popleft()
                self.room.give(len(piece.data), piece.rows)

    def stop(self) -> None:
        """What still waits has to be drained."""
        self._stopping.set()
        self._some.set()
        if self._thread.is_alive():
            self._thread.join()

    def _piece(self) -> tuple[Encoded, int]:
        """The oldest batches that go into one segment, as one write; and how many they are."""
        first = self._waiting[0][0]
        batches, size = [first.data], len(first.data)
        rows = first.rows
        for at in range(1, len(self._waiting)):
            batch = self._waiting[at][0]
            size += len(batch.data)
            if batch.layout is not first.layout or size > PIECE:
                break
            batches.append(batch.data)
            rows += batch.rows
        data = first.data if len(batches) == 1 else b"".join(batches)
        return Encoded(first.layout, data, rows), len(batches)

    def _run(self) -> None:
        failing = False
        while not self._stopping.is_set():
            self._some.wait()
            self._stopping.wait(REST)
            self._some.clear()
            try:
                self.drain()
                failing = False
            except Exception as problem:  # noqa: BLE001 - else the thread, and all rows after it
                self._some.set()  # try again after the rest
                self.errors += 1
                if not failing:  # said once, not fifty times a second
                    logger.error("Rows stay in memory until the spool takes them: %s", problem)
                failing = True
