"""When to try again what failed."""

from __future__ import annotations

import time

from homeostat.errors import IntegrityError

FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0


class Tries:
    """Of one version: longer and longer waits."""

    def __init__(self) -> None:
        self.fetch_anew = False  # the cache holds the version, but not as it was recorded
        self.due_at = 0.0
        self.wait = FIRST_RETRY

    def due(self) -> bool:
        return time.monotonic() >= self.due_at

    def failed(self, error: Exception) -> float:
        """The seconds until the next."""
        wait, self.wait = self.wait, min(self.wait * 2, LONGEST_RETRY)
        self.fetch_anew = isinstance(error, IntegrityError)
        self.due_at = time.monotonic() + wait
        return wait
