"""Room for bytes that wait, with a limit; and waiting until some of it is free."""

from __future__ import annotations

import threading


class Room:
    """Thread-safe. What finds room beside nothing else fits, however large it is."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.rows = 0
        self.freed = 0  # grows whenever room becomes free
        self._lock = threading.Lock()  # taken by itself where nobody is told: at every batch
        self._changed = threading.Condition(self._lock)

    def take(self, size: int, rows: int, *, reserve: int = 0) -> bool:
        """False when there is no room within the limit and the reserve."""
        with self._lock:
            if self.bytes and self.bytes + size > self.limit + reserve:
                return False
            self.bytes += size
            self.rows += rows
            return True

    def add(self, size: int, rows: int = 0) -> None:
        """What is there, whether there is room or not; negative to take an addition back."""
        with self._lock:
            self.bytes += size
            self.rows += rows

    def give(self, size: int, rows: int) -> None:
        with self._changed:
            self.bytes -= size
            self.rows -= rows
            self.freed += 1
            self._changed.notify_all()

    def wait(self, seen: int, seconds: float) -> None:
        """Until more is free than when `freed` was `seen`, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.freed != seen, seconds)
