"""The thread that moves sealed segments into the tables: in order, each exactly once."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa

from homeostat.errors import HomeostatError, JournalUnavailable
from homeostat.journal.delta import commits, disk_sync, tables
from homeostat.journal.delta.commits import Chosen, NotWritten, Unstorable
from homeostat.journal.delta.tables import TableRef
from homeostat.journal.encoding.constants import ForeignRows
from homeostat.journal.spooling import segments
from homeostat.journal.spooling.retry import Retry
from homeostat.journal.spooling.segments import KINDS, Kind, Segment
from homeostat.journal.spooling.spool import Spool

logger = logging.getLogger(__name__)

MOST_BYTES = 256_000_000  # in one commit: it is in memory, more than once
MOST_SEGMENTS = 500  # in one commit: each is a file that is mapped
REMEMBERED = 100  # segments that were set aside, for those who wait for them


@dataclass
class Tally:
    """Predictions by what became of them."""

    stored: int = 0
    rejected: int = 0
    recovered: int = 0  # left by an earlier process


class Committer:
    """Rows are never given up: what cannot be stored now waits in the spool. Each kind goes its own
    way: a table that takes nothing keeps no other's rows waiting.

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
        self._group_bytes = min(group_bytes, MOST_BYTES)
        self._retries = {kind: Retry(every.total_seconds()) for kind in KINDS}
        self._wake = threading.Event()
        self._urged = threading.Event()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._rejected: deque[tuple[Segment, str]] = deque(maxlen=REMEMBERED)
        self._settling: Segment | None = None  # it may wait no more, and not be counted yet
        self._met: set[Kind] = set()
        # versions that may be in a table. By kind: what is stored of one says nothing of another
        self._tried: dict[Kind, set[int]] = {kind: set() for kind in KINDS}
        self.tally = Tally()
        self.errors = 0
        self._thread = threading.Thread(target=self._run, name=f"journal {app_id}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Something is full: do not wait for the next round. Where the last try failed, do."""
        if not all(retry.problem for retry in self._retries.values()):
            self._wake.set()

    def flush(self, within: timedelta) -> None:
        """All that is in the spool now is in the tables; raises JournalUnavailable."""
        waited_for = set(self._spool.seal())
        self._urged.set()
        self._wake.set()
        with self._changed:
            done = self._changed.wait_for(
                lambda: waited_for.isdisjoint([*self._spool.sealed(), self._settling]),
                within.total_seconds(),
            )
            rejected = [message for segment, message in self._rejected if segment in waited_for]
        if not done:
            raise JournalUnavailable(
                f"rows wait in the spool, not stored within {within.total_seconds():g} s; "
                f"they will be: {self._problems() or 'the storage is slow'}"
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
            urged = self._urged.is_set()
            self._urged.clear()
            open_too = (woken or not first) and not urged  # who urges has sealed what is meant
            for kind, retry in self._retries.items():
                if urged or retry.due(woken=woken):
                    self._try(kind, open_too=open_too)
            first = False
            pause = min(retry.left() for retry in self._retries.values())

    def _try(self, kind: Kind, *, open_too: bool) -> None:
        retry = self._retries[kind]
        try:
            self._round(kind, open_too=open_too)
            retry.succeeded()
        except BaseException as problem:  # noqa: BLE001 - a panic in delta-rs is no Exception
            away = isinstance(problem, JournalUnavailable | OSError)
            retry.failed(problem, costly=not away or isinstance(problem, NotWritten))
            self.errors += 1
            logger.error(
                "The journal could not store %s, next try in %.2g s: %s",
                kind,
                retry.wait,
                problem,
            )

    def _round(self, kind: Kind, *, open_too: bool) -> None:
        self._meet(kind)
        self._spool.count_set_aside()
        # nothing is sealed while older segments wait, or each failing try would leave a small one
        self._store_all(self._spool.sealed([kind]))
        if open_too:
            self._store_all(self._spool.seal([kind]))

    def _store_all(self, waiting: Sequence[Segment]) -> None:
        for group in self._groups(waiting):
            self._store(group)  # a failure ends the round: none may get ahead of an older one
            with self._changed:
                self._changed.notify_all()

    def _meet(self, kind: Kind) -> None:
        """Learn once what the table has seen of this writer. Not before the server starts: it
        need not wait for a storage that is away."""
        if kind not in self._met:
            self._spool.number_above(commits.committed(self._targets[kind], self._app_id))
            self._met.add(kind)

    def _problems(self) -> str:
        return "; ".join(retry.problem for retry in self._retries.values() if retry.problem)

    def _groups(self, waiting: Sequence[Segment]) -> Iterator[list[Segment]]:
        """The oldest first."""
        group: list[Segment] = []
        size = 0
        for segment in waiting:
            size += segment.bytes
            if group and (size > self._group_bytes or len(group) >= MOST_SEGMENTS):
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
        self._tried[kind] = {segment.seq for segment in left[-1:]}
        for segment in left:
            self._done(segment)

    def _choose(self, left: list[Segment], taken: int, schema: Any) -> Chosen | None:
        """The rows of those of `left` that are not in the table yet. It keeps the others."""
        stored = [segment for segment in left if self._is_in(segment, taken)]
        self._sync_back(stored)
        for segment in stored:
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
        self._spool.trying(left[-1].kind, left[-1].seq)
        for segment in left:
            segment.attempted = True
        self._tried[left[-1].kind].add(left[-1].seq)
        # a later segment may have brought a column that an earlier one has not got
        whole = pa.concat_tables([commits.fit(rows, schema) for rows in found])
        return Chosen(whole, left[-1].seq)

    def _is_in(self, segment: Segment, taken: int) -> bool:
        """After a commit that may have happened. Of what this process took, only its own commits
        count: a number that it never tried is another process's, which uses our id by mistake."""
        if not segment.attempted or segment.seq > taken:
            return False
        return segment.left_over or taken in self._tried[segment.kind]

    def _sync_back(self, stored: Sequence[Segment]) -> None:
        """Their commit may have ended before it was on the disk."""
        target = self._targets[stored[0].kind] if stored else None
        if target is not None and target.local is not None:
            with tables.reaching(target):
                disk_sync.sync_back_to(target.local, self._app_id, stored[0].seq)

    def _number(self, left: Sequence[Segment], taken: int) -> None:
        if all(segment.seq > taken for segment in left):
            return
        kind = left[0].kind
        logger.warning(
            "%s has seen number %d of the writer %s: rows are numbered anew. If another "
            "process writes as %s, give it an id of its own",
            self._targets[kind].url,
            taken,
            self._app_id,
            self._app_id,
        )
        self._spool.renumber(kind, taken, stays=lambda segment: self._is_in(segment, taken))

    def _read(self, segment: Segment, schema: Any) -> Any | None:
        """Its rows with the table's columns; None where it has none, or none that fit."""
        target = self._targets[segment.kind]
        segment.damaged = segment.left_over and segments.damaged(segment.path)
        try:
            data = segments.read(segment.path, segment.bytes)
            if data is None and segment.rows == 0 and not segment.damaged:
                self._spool.discard(segment)
                return None
            if data is None or segment.rows > data.num_rows:
                raise Unstorable("the file is damaged")
            if segment.left_over and segment.rows == 0:
                self._recover(segment, data.num_rows)
            data = tables.with_partitions(data, target)
            return commits.fit(data, schema)
        except (Unstorable, ForeignRows) as problem:
            self._reject(segment, problem)
            return None

    def _recover(self, segment: Segment, rows: int) -> None:
        """Count what an earlier process left, now that it is known how much that is."""
        segment.rows = rows
        self._spool.room.add(0, segment.waiting)
        self.tally.recovered += segment.waiting

    def _done(self, segment: Segment) -> None:
        with self._being_settled(segment):
            if segment.damaged:
                logger.error(
                    "The journal stored what it could read of a damaged file, which is kept in %s",
                    self._spool.set_aside(segment),
                )
                self.errors += 1
            else:
                self._spool.discard(segment)  # what cannot be deleted comes here again
            self.tally.stored += segment.waiting

    def _reject(self, segment: Segment, problem: HomeostatError) -> None:
        with self._being_settled(segment):
            kept = self._spool.set_aside(segment)
            self.errors += 1
            self.tally.rejected += segment.waiting
            message = f"rows cannot be stored and are kept in {kept}: {problem}"
            logger.error("The journal set rows aside: %s", message)
            with self._changed:
                self._rejected.append((segment, message))

    @contextmanager
    def _being_settled(self, segment: Segment) -> Iterator[None]:
        """Who waits for it does so until what became of it is counted and told."""
        self._settling = segment
        try:
            yield
        finally:
            with self._changed:
                self._settling = None
                self._changed.notify_all()
