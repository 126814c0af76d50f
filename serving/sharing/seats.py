"""How many connections each worker has, in memory that all of them share.

By it a new connection goes to the worker that has the fewest. The kernel would give it to whoever
wakes up first, mostly the same one, or with SO_REUSEPORT to one by lot, also while that one is
being replaced.
"""

from __future__ import annotations

import mmap
import os
import tempfile

MOST = 256  # workers
AWAY = 1 << 30  # of a seat on which nobody takes connections
WAITING = (
    1 << 29
)  # added while a worker has no version to serve: it is asked only if all others are
_WIDTH = 4  # bytes of a seat


SIZE = MOST * _WIDTH  # bytes, at the start of the file


def make(beside: int = 0) -> int:
    """A file descriptor that workers inherit, with `beside` bytes more for others; its memory is
    given back with the last of them."""
    with tempfile.TemporaryFile() as file:
        file.truncate(SIZE + beside)
        descriptor = os.dup(file.fileno())
    seats = Seats(descriptor)
    for each in range(MOST):
        seats.leave(each)
    return descriptor


class Seats:
    """Each seat is written by its worker, and by the supervisor once that one is gone."""

    def __init__(self, descriptor: int) -> None:
        self._memory = memoryview(mmap.mmap(descriptor, SIZE)).cast("i")

    def take(self, seat: int, connections: int, *, waiting: bool) -> None:
        self._memory[seat] = connections + (WAITING if waiting else 0)

    def leave(self, seat: int) -> None:
        self._memory[seat] = AWAY

    def least(self) -> int:
        """Of the worker that has the fewest."""
        return min(self._memory)

    def __getitem__(self, seat: int) -> int:
        return self._memory[seat]
