"""The thread that moves sealed segments into the tables: in order, each exactly once."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa

from homeostat.errors import JournalUnavailable
from homeostat.journal import commits, segments, tables
from homeostat.journal.commits import Chosen, Unstorable
from homeostat.journal.segments import Kind, Segment
from homeostat.journal.spool import Spool
from homeostat.journal.tables import TableRef

logger = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 0.25, 5.0  # seconds between tries while the storage is away
MOST_BYTES = 256_000_000  # in one commit: it is in memory, more than once
MOST_SEGMENTS = 500  # in one commit: each is a file that is mapped
REMEMBERED = 100  # segments that were set aside, for those who wait for them
TIME_COLUMN: dict[Kind, str] = {"predictions": "time", "labels": "received"}


@dataclass
class Tally:
    """Predictions by what became of them."""

    stored: int = 0
    rejected: int = 0
    recovered: int = 0  # left by an earlier process


class Committer:
    """Rows are never given up: what cannot be stored now waits in the spool.

    One commit takes as many waiting segments as are worth `group_bytes`, under the number of the
    last of them: the writer's version in the table says which segments are in it.
    """

    def __init__(
        self,
        spool: Spool,
        targets: dict[Kind, TableRef],
        *,
        app_id: str,
        every: timedelta,
        group_bytes: int,
    ) -> None:
        self._spool = spool
        self._targets = targets
        self._app_id = app_id
        self._every = every.total_seconds()
        self._group_bytes = min(group_bytes, MOST_BYTES)
        self._wake = threading.Event()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._rejected: deque[tuple[Segment, str]] = deque(maxlen=REMEMBERED)
        self._met = False
        self._tried: set[int] = set()  # versions that may be in a table
        self._problem = ""
        self._failing = 0.0  # seconds to the next try, after one that failed
        self.tally = Tally()
        self.errors = 0
        self._thread = threading.Thread(target=self._run, name=f"journal {app_id}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Something is full: do not wait for the next round. While the storage is away, do."""
        if not self._failing:
            self._wake.set()

    def flush(self, within: timedelta) -> None:
        """All that is in the spool now is in the tables; raises JournalUnavailable."""
        waited_for = set(self._spool.seal())
        self._wake.set()
        with self._changed:
            done = self._changed.wait_for(
                lambda: waited_for.isdisjoint(self._spool.sealed()), within.total_seconds()
            )
            rejected = [message for segment, message in self._rejected if segment in waited_for]
        if not done:
            raise JournalUnavailable(
                f"rows wait in the spool, not stored within {within.total_seconds():g} s; "
                f"they will be: {self._problem or 'the storage is slow'}"
            )
        if rejected:
            raise JournalUnavailable("; ".join(rejected))

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause, first = 0.0, True  # what an earlier process left is stored at once
        while not self._stopping.is_set():
            woken = self._wake.wait(pause)
            self._wake.clear()
            if self._stopping.is_set():
                return
            open_too, first = woken or not first, False
            try:
                self._round(open_too=open_too)
                pause, self._failing = self._every, 0.0
            except BaseException as problem:  # noqa: BLE001 - a panic in delta-rs is no Exception
                self._failing = min(max(FIRST_WAIT, self._failing * 2), LONGEST_WAIT)
                pause = self._failing
                self.errors += 1
                self._problem = str(problem)
                logger.error(
                    "The journal could not store rows, next try in %.2g s: %s", pause, problem
                )

    def _round(self, *, open_too: bool) -> None:
        self._meet()
        self._spool.count_set_aside()
        # nothing is sealed while older segments wait, or each failing try would leave a small one
        self._store_all(self._spool.sealed())
        if open_too:
            self._store_all(self._spool.seal())

    def _store_all(self, waiting: Sequence[Segment]) -> None:
        for group in self._groups(waiting):
            self._store(group)  # a failure ends the round: none may get ahead of an older one
            with self._changed:
                self._changed.notify_all()

    def _meet(self) -> None:
        """Learn once what the tables have seen of this writer. Not before the server starts: it
        need not wait for a storage that is away."""
        if not self._met:
            taken = (commits.committed(each, self._app_id) for each in self._targets.values())
            self._spool.number_above(max(taken))
            self._met = True

    def _groups(self, waiting: Sequence[Segment]) -> Iterator[list[Segment]]:
        """Of one kind each, the oldest first."""
        group: list[Segment] = []
        size = 0
        for segment in waiting:
            size += segment.bytes
            full = size > self._group_bytes or len(group) >= MOST_SEGMENTS
            if group and (full or segment.kind != group[0].kind):
                yield group
                group, size = [], segment.bytes
            group.append(segment)
        if group:
            yield group

    def _store(self, group: list[Segment]) -> None:
        kind = group[0].kind
        left = list(group)
        commits.commit_what(
            self._targets[kind],
            lambda taken, schema: self._choose(left, taken, schema),
            app_id=self._app_id,
        )
        self._tried = {segment.seq for segment in left[-1:]}
        for segment in left:
            self._done(segment)

    def _choose(self, left: list[Segment], taken: int, schema: Any) -> Chosen | None:
        """The rows of those of `left` that are not in the table yet. It keeps the others."""
        for segment in list(left):
            if self._is_in(segment, taken):
                left.remove(segment)
                self._done(segment)
        self._number(left, taken)
        found: list[Any] = []
        for segment in list(left):
            rows = self._read(segment, schema)
            if rows is None:
                left.remove(segment)
            else:
                found.append(rows)
                schema = rows.schema
        if not found:
            return None
        for segment in left:
            segment.attempted = True
        self._tried.add(left[-1].seq)
        # a later segment may have brought a column that an earlier one has not got
        whole = pa.concat_tables([commits.fit(rows, schema) for rows in found])
        return Chosen(whole, left[-1].seq)

    def _is_in(self, segment: Segment, taken: int) -> bool:
        """After a commit that may have happened. Of what this process took, only its own commits
        count: a number that it never tried is another process's, which uses our id by mistake."""
        if not segment.attempted or segment.seq > taken:
            return False
        return segment.left_over or taken in self._tried

    def _number(self, left: Sequence[Segment], taken: int) -> None:
        for segment in left:
            if segment.seq <= taken:
                logger.warning(
                    "%s has seen number %d of the writer %s: rows are numbered anew. If another "
                    "process writes as %s, give it an id of its own",
                    self._targets[segment.kind].url,
                    taken,
                    self._app_id,
                    self._app_id,
                )
                self._spool.renumber(segment, taken)
            taken = segment.seq

    def _read(self, segment: Segment, schema: Any) -> Any | None:
        """Its rows with the table's columns; None where it has none, or none that fit."""
        target = self._targets[segment.kind]
        data = segments.read(segment.path)
        if data is None and segment.rows == 0:
            self._spool.discard(segment)
            return None
        try:
            if data is None or segment.rows > data.num_rows:
                raise Unstorable("the file is damaged")
            if segment.left_over and segment.rows == 0:
                self._recover(segment, data.num_rows)
            data = tables.with_partitions(data, target, TIME_COLUMN[segment.kind])
            return commits.fit(data, schema)
        except Unstorable as problem:
            self._reject(segment, problem)
            return None

    def _recover(self, segment: Segment, rows: int) -> None:
        """Count what an earlier process left, now that it is known how much that is."""
        segment.rows = rows
        self._spool.room.add(0, segment.waiting)
        self.tally.recovered += segment.waiting

    def _done(self, segment: Segment) -> None:
        self._spool.discard(segment)  # what cannot be deleted comes here again, and counts once
        self.tally.stored += segment.waiting

    def _reject(self, segment: Segment, problem: Unstorable) -> None:
        kept = self._spool.set_aside(segment)
        self.errors += 1
        self.tally.rejected += segment.waiting
        message = f"rows cannot be stored and are kept in {kept}: {problem}"
        logger.error("The journal set rows aside: %s", message)
        with self._changed:
            self._rejected.append((segment, message))
            self._changed.notify_all()
