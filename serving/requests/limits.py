"""How many rows a key may send: a bucket that fills at a rate, shared by all workers."""

from __future__ import annotations

import fcntl
import math
import mmap
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from homeostat.auth import Charge, Key, Limit
from serving.requests.problem import Refused

if TYPE_CHECKING:
    from serving.requests.parsing import Rows

V = TypeVar("V")
MOST = 1024  # keys with a limit; further ones share the buckets of others
_ENTRY = struct.Struct("=8sdd")  # whose it is, what is in it, and when that was so
SIZE = MOST * _ENTRY.size


class Bucket(NamedTuple):
    """Filled with `rows` at the time `at`; below zero where a large request is being paid off."""

    rows: float
    at: float


def take(bucket: Bucket, limit: Limit, rows: int, now: float) -> tuple[Bucket, float]:
    """What is left, and 0; or how many seconds to wait until as much may be taken.

    A request larger than the whole bucket is let through when it is full, and holds up the next
    ones for so much longer: over any time no more than the rate comes through, and one burst.
    """
    filled = bucket.rows + max(0.0, now - bucket.at) * limit.rows_per_second
    bucket = Bucket(min(limit.burst, filled), max(now, bucket.at))
    missing = min(float(rows), limit.burst) - bucket.rows
    if missing <= 0:
        return Bucket(bucket.rows - rows, bucket.at), 0.0
    return bucket, missing / limit.rows_per_second


def charged(read: Callable[[V], Rows], charge: Charge | None) -> Callable[[V], Rows]:
    """The same reading of a request's rows, charged once, however often they are read."""
    if charge is None:
        return read
    due = [charge]

    def reading(version: V) -> Rows:
        rows = read(version)
        if due:
            due.pop()(rows.count)
        return rows

    return reading


class Buckets:
    """In the memory of one process; or of several, where they are given the descriptor of a file of
    at least `offset` + SIZE bytes, all zero at first."""

    def __init__(
        self, clock: Callable[[], float], descriptor: int | None = None, offset: int = 0
    ) -> None:
        self._clock = clock
        self._descriptor = descriptor
        self._offset = offset
        whole = -1 if descriptor is None else descriptor
        self._memory = mmap.mmap(whole, offset + SIZE)

    def charge(self, key: Key, rows: int) -> None:
        """Raises Refused (429)."""
        limit = key.limit
        if limit is None:
            return
        whose = bytes.fromhex(key.sha256[:16])
        start = int.from_bytes(whose, "big") % MOST
        self._lock(fcntl.LOCK_EX)
        try:
            place, bucket = self._find(whose, start, limit)
            bucket, wait = take(bucket, limit, rows, self._clock())
            _ENTRY.pack_into(self._memory, place, whose, *bucket)
        finally:
            self._lock(fcntl.LOCK_UN)
        if wait > 0:
            raise Refused(
                f'the key "{key.name}" may send {limit.rows_per_second:g} rows a second, and '
                f"{limit.burst:g} at once; try again in {wait:.3g} s",
                status=429,
                retry_after=math.ceil(wait),
            )

    def _find(self, whose: bytes, start: int, limit: Limit) -> tuple[int, Bucket]:
        """Where its bucket is; a full one where it has none yet."""
        for step in range(MOST):
            place = self._offset + (start + step) % MOST * _ENTRY.size
            owner, rows, at = _ENTRY.unpack_from(self._memory, place)
            if owner == whose:
                return place, Bucket(rows, at)
            if owner == bytes(8):
                break
        else:
            place = self._offset + start * _ENTRY.size
        return place, Bucket(limit.burst, self._clock())

    def _lock(self, kind: int) -> None:
        if self._descriptor is not None:  # a lock is a process's: others wait, we do not
            fcntl.lockf(self._descriptor, kind, SIZE, self._offset)
