"""The local folder in which rows wait for their Delta commit, safe from a kill of the process."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from homeostat.errors import Conflict, JournalUnavailable
from homeostat.journal import segments
from homeostat.journal.encoding import microseconds
from homeostat.journal.segments import Kind, OpenSegment, Segment


class Spool:
    """Open segments take rows, sealed ones wait for the committer. Thread-safe.

    Segments are numbered upwards over restarts. The clock is the floor of the numbers, so that
    they go on even where the folder was lost and the tables cannot be asked.
    """

    def __init__(self, folder: Path, *, seal_bytes: int, clock: Callable[[], datetime]) -> None:
        self._folder = folder
        self._seal_bytes = seal_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._claim: int | None = None
        self._last = 0
        self._open: dict[Kind, OpenSegment] = {}
        self._sealed: list[Segment] = []

    def start(self) -> None:
        """Claim the folder and find what an earlier process left in it; Conflict if claimed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        claim = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            os.close(claim)
            raise Conflict(
                f"another process writes to the spool {self._folder}: end it, "
                "or give this one a writer id of its own"
            ) from problem
        self._claim = claim
        self._sealed = self._left_over()
        self._last = max((segment.seq for segment in self._sealed), default=0)

    def number_above(self, committed: int) -> None:
        """Number new segments above what the tables have seen of this writer."""
        with self._lock:
            self._last = max(self._last, committed)

    def write(self, kind: Kind, batch: Any, *, sync: bool) -> bool:
        """Append rows; True when a segment became full. Raises JournalUnavailable (disk full …)."""
        with self._lock:
            try:
                target = self._target(kind, batch.schema)
                target.write(batch)
                if sync:
                    target.sync()
            except OSError as problem:
                raise JournalUnavailable(
                    f"cannot write to the spool {self._folder}: {problem}; free space or "
                    "make the folder writable"
                ) from problem
            if target.segment.bytes < self._seal_bytes:
                return False
            self._seal(kind)
            return True

    def seal(self) -> list[Segment]:
        """Close the open segments; every segment that waits, oldest first."""
        with self._lock:
            for kind in list(self._open):
                self._seal(kind)
            return list(self._sealed)

    def sealed(self) -> list[Segment]:
        with self._lock:
            return list(self._sealed)

    def discard(self, segment: Segment) -> None:
        """Its rows are in the table."""
        segment.path.unlink(missing_ok=True)
        with self._lock:
            self._sealed.remove(segment)

    def set_aside(self, segment: Segment) -> Path:
        """Its rows can never be stored as they are: keep them out of the way, for a person."""
        folder = self._folder / "rejected"
        folder.mkdir(exist_ok=True)
        kept = segment.path.rename(folder / segment.path.name)
        with self._lock:
            self._sealed.remove(segment)
        return kept

    def renumber(self, segment: Segment, above: int) -> None:
        """Give a segment that was never committed a number above one that is taken."""
        with self._lock:
            self._last = max(self._last, above)
            segment.seq = self._next()
            segment.path = segment.path.rename(
                segments.path_of(self._folder, segment.seq, segment.kind)
            )

    def waiting(self) -> tuple[int, datetime | None]:
        """Bytes that wait, and since when the oldest of them does."""
        with self._lock:
            every = [*self._sealed, *(each.segment for each in self._open.values())]
            return sum(s.bytes for s in every), min((s.since for s in every), default=None)

    def close(self) -> None:
        """Let go of the folder; what still waits is found by the next start."""
        self.seal()
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def _target(self, kind: Kind, schema: Any) -> OpenSegment:
        target = self._open.get(kind)
        if target is not None and target.schema is not schema and target.schema != schema:
            self._seal(kind)
            target = None
        if target is None:
            if self._claim is None:
                raise JournalUnavailable("the journal is not open: call start() first")
            target = self._open[kind] = OpenSegment(self._new(kind), schema)
        return target

    def _new(self, kind: Kind) -> Segment:
        seq, now = self._next(), self._clock()
        path = segments.path_of(self._folder, seq, kind)
        return Segment(path=path, seq=seq, kind=kind, bytes=0, since=now, attempted=False)

    def _next(self) -> int:
        self._last = max(self._last + 1, microseconds(self._clock()))
        return self._last

    def _seal(self, kind: Kind) -> None:
        target = self._open.pop(kind)
        target.close()
        self._sealed.append(target.segment)

    def _left_over(self) -> list[Segment]:
        found = []
        for path in sorted(self._folder.iterdir()):
            named = segments.parse(path)
            if named is not None:
                stat = path.stat()
                since = datetime.fromtimestamp(stat.st_mtime, UTC)
                found.append(Segment(path, named[0], named[1], stat.st_size, since, True))
        return found
