"""The server's side of the prediction log: rows and labels in, Delta tables in the background."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from homeostat.errors import JournalFull, JournalUnavailable
from homeostat.journal.delta import tables
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.encoding.encoder import PredictionEncoder
from homeostat.journal.encoding.message import Encoded, Layout, from_batch
from homeostat.journal.encoding.recording import Recording
from homeostat.journal.encoding.schema import LABEL_SCHEMA, encode_labels, microseconds
from homeostat.journal.spooling.backlog import Backlog
from homeostat.journal.spooling.committer import MOST_BYTES, Committer
from homeostat.journal.spooling.limits import Limits
from homeostat.journal.spooling.spool import Spool
from homeostat.records import Label, Task

logger = logging.getLogger(__name__)

NO_LIMITS, EVERYTHING = Limits(), Recording()
DURABILITIES = ("async", "spool", "sync")


@dataclass(frozen=True, kw_only=True)
class SpoolLevel:
    """How much went in, how much is in the tables, and what waits; counted since start().

    Rows add up: received + recovered = stored + dropped + rejected + sampled_out + waiting.
    """

    received: int  # rows given to append, less those it refused with an error
    recovered: int  # rows an earlier process left in the spool, from when this one read them
    stored: int
    dropped: int  # for want of room, with when_full "drop"
    rejected: int  # rows that fit no table, set aside in a file
    sampled_out: int
    waiting: int
    labels: int
    memory_bytes: int
    spool_bytes: int
    oldest: datetime | None  # when the oldest waiting row came
    errors: int  # failed tries; each is tried again


class JournalWriter:
    """One a process and model; thread-safe. No two processes may use one writer id.

    `append` returns once the promise of `durability` holds: "async" within 50 ms after it
    returned the rows are in the spool, "spool" they are (a kill -9 loses nothing), "sync" they are
    on the disk (a power loss loses nothing). Storage that is away is never felt here: rows wait
    in the spool.
    """

    def __init__(
        self,
        *,
        url: str,
        spool: Path,
        model: str,
        task: Task,
        writer_id: str,
        durability: str,
        commit_every: timedelta,
        commit_bytes: int,
        clock: Callable[[], datetime],
        flush_within: timedelta = timedelta(seconds=30),
        limits: Limits = NO_LIMITS,
        recording: Recording = EVERYTHING,
    ) -> None:
        if durability not in DURABILITIES:
            raise ValueError(f"durability is one of {DURABILITIES}, not {durability!r}")
        self._async = durability == "async"
        self._sync = durability == "sync"
        self._clock = clock
        self._flush_within = flush_within
        self._drops = limits.when_full == "drop"
        self._encoder = PredictionEncoder(task, recording)
        self._spool = Spool(
            spool / model / writer_id,
            seal_bytes=min(commit_bytes, MOST_BYTES),
            limit=limits.spool,
            clock=clock,
        )
        self._committer = Committer(
            self._spool,
            {
                "predictions": tables.predictions(url, model, task),
                "labels": tables.labels(url, model),
            },
            app_id=writer_id,
            every=commit_every,
            group_bytes=commit_bytes,
        )
        self._backlog = Backlog(limits.memory, self._spool_rows, name=writer_id)
        self._put = self._backlog.add if self._async else self._spool_rows
        self._room = self._backlog.room if self._async else self._spool.room
        self._counting = threading.Lock()
        self._received = self._dropped = self._sampled_out = self._labels = 0
        self._last_label_us = 0
        self._label_layout = Layout(LABEL_SCHEMA)

    def start(self) -> None:
        """Claim the spool; what an earlier process left is stored in the background, also when
        the storage is away now. Conflict: the id is in use."""
        self._spool.start()
        self._committer.start()
        if self._async:
            self._backlog.start()

    def append(self, batch: PredictionBatch, wait: float = 0.0) -> None:
        """Where there is no room, wait so many seconds for it, then raise JournalFull; or
        JournalUnavailable, where the disk does not take the rows. With when_full "drop" the rows
        are counted as dropped instead. InputError: a batch that cannot be. After an error nothing
        of the batch is stored."""
        if not batch.ids:
            return
        rows, taken = self._encoder.encode(batch), True
        if rows is not None:
            seen = self._room.freed
            try:
                self._put(rows, batch.time_us)
            except JournalUnavailable as refused:
                taken = self._put_later(rows, batch.time_us, wait, seen, refused)
        logged = 0 if rows is None else rows.rows
        with self._counting:
            self._received += len(batch.ids)
            self._sampled_out += len(batch.ids) - logged
            self._dropped += 0 if taken else logged

    def _put_later(
        self, rows: Encoded, time_us: int, wait: float, seen: int, refused: JournalUnavailable
    ) -> bool:
        """Once there is room; `seen` is what was free when they were refused. False where they were
        dropped."""
        deadline = time.monotonic() + wait if wait > 0 else 0.0
        while True:
            self._committer.wake()  # which makes room
            if self._drops:
                return False
            left = deadline - time.monotonic() if wait > 0 else 0.0
            if left <= 0:
                raise refused
            self._room.wait(seen, left)  # then one more try, even where no room was given
            seen = self._room.freed
            try:
                self._put(rows, time_us)
                return True
            except JournalUnavailable as problem:
                refused = problem

    def _spool_rows(self, rows: Encoded, _time_us: int = 0) -> None:
        if self._spool.write("predictions", rows, sync=self._sync):
            self._committer.wake()

    def label(self, labels: Sequence[Label]) -> None:
        """On the disk when it returns; of labels with the same time, the last given wins. Raises
        JournalFull or JournalUnavailable at once, whatever when_full says: none is dropped."""
        if not labels:
            return
        with self._counting:
            self._last_label_us = max(self._last_label_us + 1, microseconds(self._clock()))
            received = self._last_label_us
        rows = from_batch(self._label_layout, encode_labels(labels, received))
        if self._spool.write("labels", rows, sync=True):
            self._committer.wake()
        with self._counting:
            self._labels += len(labels)

    def flush(self) -> None:
        """Everything given so far is in the tables when it returns; JournalUnavailable if it
        cannot be yet: nothing is lost then, and it will be."""
        while True:
            freed = self._spool.room.freed
            try:
                self._backlog.drain()
                self._committer.flush(self._flush_within)
                return
            except JournalFull:  # what is in the spool has to go first
                self._committer.flush(self._flush_within)
                if self._spool.room.freed == freed:
                    raise

    def level(self) -> SpoolLevel:
        tally, backlog, spool = self._committer.tally, self._backlog, self._spool
        since = [each for each in (backlog.oldest(), spool.oldest()) if each is not None]
        return SpoolLevel(
            received=self._received,
            recovered=tally.recovered,
            stored=tally.stored,
            dropped=self._dropped,
            rejected=tally.rejected,
            sampled_out=self._sampled_out,
            waiting=backlog.room.rows + spool.room.rows,
            labels=self._labels,
            memory_bytes=backlog.room.bytes,
            spool_bytes=spool.room.bytes,
            oldest=min(since, default=None),
            errors=self._committer.errors + backlog.errors,
        )

    def close(self) -> None:
        """Store what waits and let go of the spool; what cannot be stored stays in it."""
        self._backlog.stop()
        try:
            self.flush()
        except JournalUnavailable as problem:
            logger.warning("The journal closed with rows in its spool: %s", problem)
        if self._backlog.room.rows:
            logger.error("%d rows are lost: the spool did not take them", self._backlog.room.rows)
        self._committer.stop()
        self._spool.close()
