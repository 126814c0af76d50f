"""The thread that moves sealed segments into the tables: in order, each exactly once."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import Any

from homeostat.errors import JournalUnavailable
from homeostat.journal import commits, segments, tables
from homeostat.journal.commits import Unstorable
from homeostat.journal.segments import Kind, Segment
from homeostat.journal.spool import Spool
from homeostat.journal.tables import TableRef

logger = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 0.25, 30.0  # seconds between tries while the storage is away
TIME_COLUMN: dict[Kind, str] = {"predictions": "time", "labels": "received"}


class Committer:
    """Rows are never given up: what cannot be stored now waits in the spool."""

    def __init__(
        self, spool: Spool, targets: dict[Kind, TableRef], *, app_id: str, every: timedelta
    ) -> None:
        self._spool = spool
        self._targets = targets
        self._app_id = app_id
        self._every = every.total_seconds()
        self._wake = threading.Event()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._rejected: dict[Segment, str] = {}
        self._problem = ""
        self.stored = 0  # predictions
        self.errors = 0
        self._thread = threading.Thread(target=self._run, name=f"journal {app_id}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """A segment is full: do not wait for the next round."""
        self._wake.set()

    def flush(self, within: timedelta) -> None:
        """All that is in the spool now is in the tables; raises JournalUnavailable."""
        waited_for = set(self._spool.seal())
        self._wake.set()
        with self._changed:
            done = self._changed.wait_for(
                lambda: waited_for.isdisjoint(self._spool.sealed()), within.total_seconds()
            )
            rejected = [self._rejected[each] for each in waited_for & self._rejected.keys()]
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
        pause = failing = 0.0  # what an earlier process left is stored at once
        while not self._stopping.is_set():
            self._wake.wait(pause)
            self._wake.clear()
            if self._stopping.is_set():
                return
            try:
                self._round()
                pause, failing = self._every, 0.0
            except BaseException as problem:  # noqa: BLE001 - a panic in delta-rs is no Exception
                pause = failing = min(max(FIRST_WAIT, failing * 2), LONGEST_WAIT)
                self.errors += 1
                self._problem = str(problem)
                logger.error(
                    "The journal could not store rows, next try in %.2g s: %s", pause, problem
                )

    def _round(self) -> None:
        # a failure ends the round: a later segment may not get ahead of an earlier one
        for segment in self._spool.seal():
            self._store(segment)
            with self._changed:
                self._changed.notify_all()

    def _store(self, segment: Segment) -> None:
        data = segments.read(segment.path)
        if data is not None:
            try:
                self._commit(segment, data)
            except Unstorable as problem:
                self._reject(segment, problem)
                return
            if segment.kind == "predictions":
                self.stored += data.num_rows
        self._spool.discard(segment)

    def _commit(self, segment: Segment, data: Any) -> None:
        target = self._targets[segment.kind]
        if not segment.attempted:
            taken = commits.committed(target, self._app_id)
            if taken >= segment.seq:
                logger.error(
                    "Somebody else writes to %s as %s: each process needs a writer id of its own",
                    target.url,
                    self._app_id,
                )
                self._spool.renumber(segment, taken)
            segment.attempted = True
        dated = tables.with_partitions(data, target, TIME_COLUMN[segment.kind])
        commits.commit(target, dated, app_id=self._app_id, version=segment.seq)

    def _reject(self, segment: Segment, problem: Unstorable) -> None:
        kept = self._spool.set_aside(segment)
        self.errors += 1
        message = f"rows cannot be stored and are kept in {kept}: {problem}"
        logger.error("The journal set rows aside: %s", message)
        with self._changed:
            self._rejected[segment] = message
            self._changed.notify_all()
