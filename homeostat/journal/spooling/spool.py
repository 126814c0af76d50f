"""The local folder in which rows wait for their Delta commit, safe from a kill of the process."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from homeostat.errors import Conflict, JournalFull, JournalUnavailable
from homeostat.journal.delta.disk_sync import make_folder, sync_folder
from homeostat.journal.encoding.message import Encoded, Layout
from homeostat.journal.encoding.schema import microseconds
from homeostat.journal.spooling import segments
from homeostat.journal.spooling.room import Room
from homeostat.journal.spooling.segments import KINDS, Kind, OpenSegment, Segment
from homeostat.journal.spooling.tried import Tried

LABELS_RESERVE = 64_000_000  # bytes beyond the limit: a log full of rows keeps no label out
MOST_OPEN = 16  # segments of a kind; each schema has its own
FLOOR = "numbered"  # file that says which segments may have been committed


class Spool:
    """Open segments take rows, sealed ones wait for the committer. Thread-safe.

    Segments are numbered upwards over restarts, above all that were ever tried from the folder. The
    clock is the floor of the numbers, so that they go on even where the folder was lost and the
    tables cannot be asked.
    """

    def __init__(
        self, folder: Path, *, seal_bytes: int, limit: int, clock: Callable[[], datetime]
    ) -> None:
        self.room = Room(limit)
        self._folder = folder
        self._seal_bytes = seal_bytes
        self._clock = clock
        self._lock = threading.Lock()  # never held while a disk is waited for
        self._sealing: dict[Kind, threading.Lock] = {kind: threading.Lock() for kind in KINDS}
        self._claim: int | None = None
        self._tried = Tried(folder / FLOOR)
        self._last = 0
        self._open: dict[Kind, dict[Layout, OpenSegment]] = {kind: {} for kind in KINDS}
        self._sealed: dict[Kind, list[Segment]] = {kind: [] for kind in KINDS}
        self._set_aside = 0  # bytes

    def start(self) -> None:
        """Claim the folder and find what an earlier process left in it; Conflict if claimed."""
        make_folder(self._folder)
        claim = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            os.close(claim)
            raise Conflict(
                f"another process writes to the spool {self._folder}: a project has one server at "
                "a time (with --workers, of several processes). End the other one, or give this "
                "one a project folder, or a `home`, of its own"
            ) from problem
        self._claim = claim
        self._find_left_over()
        self.count_set_aside()

    def number_above(self, committed: int) -> None:
        """Number new segments above what the tables have seen of this writer."""
        with self._lock:
            self._last = max(self._last, committed)

    def trying(self, kind: Kind, number: int) -> None:
        """Segments up to this number may be in the table from now on. Raises OSError."""
        self._tried.raise_to(kind, number)

    def write(self, kind: Kind, rows: Encoded, *, sync: bool) -> bool:
        """Append rows; True when a segment became full. Raises JournalFull where there is no
        room, JournalUnavailable where the disk does not take them (full, read-only …)."""
        counted = rows.rows if kind == "predictions" else 0
        reserve = LABELS_RESERVE if kind == "labels" else 0
        if not self.room.take(len(rows.data), counted, reserve=reserve):
            raise JournalFull(self._full())
        try:
            target = self._written(kind, rows, sync)
        except OSError as problem:
            self.room.add(-len(rows.data), -counted)
            raise JournalUnavailable(
                f"cannot write to the spool {self._folder}: {problem}; free space or "
                "make the folder writable"
            ) from problem
        except BaseException:
            self.room.add(-len(rows.data), -counted)
            raise
        if target.segment.bytes < self._seal_bytes and len(self._open[kind]) <= MOST_OPEN:
            return False
        self._seal(kind)
        return True

    def seal(self, kinds: Sequence[Kind] = KINDS) -> list[Segment]:
        """Close the open segments; every segment that waits, the oldest of each kind first."""
        for kind in kinds:
            self._seal(kind)
        return self.sealed(kinds)

    def sealed(self, kinds: Sequence[Kind] = KINDS) -> list[Segment]:
        with self._lock:
            return [segment for kind in kinds for segment in self._sealed[kind]]

    def discard(self, segment: Segment) -> None:
        """Its rows are in the table."""
        segment.path.unlink(missing_ok=True)
        self._remove(segment)
        self.room.give(segment.bytes, segment.waiting)

    def set_aside(self, segment: Segment) -> Path:
        """Keep its file out of the way, for a person: its rows, or some, cannot be stored as they
        are. They still take up room, or what nobody looks at would fill the disk."""
        folder = self._folder / segments.REJECTED
        folder.mkdir(exist_ok=True)
        kept = segment.path.rename(folder / segment.path.name)
        self._remove(segment)
        self._set_aside += segment.bytes
        self.room.add(0, -segment.waiting)
        return kept

    def count_set_aside(self) -> None:
        """Give the room of what a person has taken away."""
        found = sum(path.stat().st_size for path in self._folder.glob("rejected/*.arrows"))
        if found != self._set_aside:
            self.room.give(self._set_aside - found, 0)
            self._set_aside = found

    def renumber(self, kind: Kind, above: int, *, stays: Callable[[Segment], bool]) -> None:
        """Give what waits of a kind numbers above one that is taken, in its order.

        All of it, and on the disk: a commit says of every lower number that it is in the table. The
        last comes first, so that a kill in between leaves them in their order.
        """
        with self._sealing[kind]:
            with self._lock:
                self._last = max(self._last, above)
                closing = list(self._open[kind].values())
                self._open[kind].clear()
                self._sealed[kind] += [target.segment for target in closing]
                waiting = [each for each in self._sealed[kind] if not stays(each)]
                numbers = [self._next() for _ in waiting]
            for target in closing:
                target.close()
            for segment, number in zip(reversed(waiting), reversed(numbers), strict=True):
                path = segments.path_of(self._folder, number, kind)
                segment.path, segment.seq = segment.path.rename(path), number
            sync_folder(self._folder)

    def oldest(self) -> datetime | None:
        """Since when the oldest of what waits does."""
        # without the lock, which is held while a segment's file is made: a scrape waits for no disk
        waiting = [segment for each in self._sealed.values() for segment in each[:1]]
        waiting += [each.segment for found in self._open.values() for each in list(found.values())]
        return min((segment.since for segment in waiting), default=None)

    def close(self) -> None:
        """Let go of the folder; what still waits is found by the next start."""
        self.seal()
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def _written(self, kind: Kind, rows: Encoded, sync: bool) -> OpenSegment:
        while True:
            target = self._open[kind].get(rows.layout)
            if target is None:
                with self._lock:
                    target = self._open[kind].get(rows.layout) or self._opened(kind, rows.layout)
            try:
                if target.write(rows.data, rows.rows, sync=sync):
                    return target
            except OSError:
                if target.broken:
                    self._seal(kind)
                raise

    def _opened(self, kind: Kind, layout: Layout) -> OpenSegment:
        if self._claim is None:
            raise JournalUnavailable("the journal is not open: call start() first")
        seq = self._next()
        path = segments.path_of(self._folder, seq, kind)
        target = OpenSegment(Segment(path, seq, kind, self._clock(), attempted=False), layout)
        self._open[kind][layout] = target
        self.room.add(len(layout.start))
        return target

    def _next(self) -> int:
        self._last = max(self._last + 1, microseconds(self._clock()))
        return self._last

    def _seal(self, kind: Kind) -> None:
        # all at once: a number is only used once no lower one of its kind can still come
        with self._sealing[kind]:
            with self._lock:
                closing = list(self._open[kind].values())
                self._open[kind].clear()
            for target in closing:
                target.close()
            with self._lock:
                self._sealed[kind] += [target.segment for target in closing]

    def _remove(self, segment: Segment) -> None:
        with self._lock:
            self._sealed[segment.kind].remove(segment)

    def _find_left_over(self) -> None:
        self._tried.load()
        self._last = max(self._tried.up_to(kind) for kind in KINDS)
        for path in sorted(self._folder.iterdir()):
            named = segments.parse(path)
            if named is not None:
                stat = path.stat()
                since = datetime.fromtimestamp(stat.st_mtime, UTC)
                seq, kind = named
                attempted = seq <= self._tried.up_to(kind)
                segment = Segment(path, seq, kind, since, attempted, stat.st_size, left_over=True)
                self._sealed[segment.kind].append(segment)
                self.room.add(segment.bytes)
                self._last = max(self._last, segment.seq)

    def _full(self) -> str:
        message = (
            f"the spool {self._folder} holds {self.room.bytes:,} bytes that wait for the tables, "
            f"and may hold {self.room.limit:,} (journal.spool)"
        )
        if self._set_aside:
            message += f"; {self._set_aside:,} of them fit no table and lie in rejected/: move them"
        return message
