"""A client that does not take its answers."""

from __future__ import annotations


class Unsent:
    """What waits in a connection for its client to take it; asked from time to time."""

    def __init__(self) -> None:
        self._size = 0
        self._since = 0.0

    def stands_for(self, size: int, now: float) -> float:
        """For how many seconds it has been exactly so many bytes, and more than none."""
        if not size or size != self._size:
            self._size, self._since = size, now
        return now - self._since
