"""The server's side of the prediction log: rows and labels in, Delta tables in the background."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from homeostat.errors import JournalUnavailable
from homeostat.journal import commits, tables
from homeostat.journal.batch import PredictionBatch
from homeostat.journal.committer import Committer
from homeostat.journal.encoding import PredictionEncoder, encode_labels, microseconds
from homeostat.journal.limits import Limits
from homeostat.journal.recording import Recording
from homeostat.journal.segments import Kind
from homeostat.journal.spool import Spool
from homeostat.journal.tables import TableRef
from homeostat.records import Label, Task

logger = logging.getLogger(__name__)

NO_LIMITS, EVERYTHING = Limits(), Recording()
ASYNC_EVERY = 0.05  # seconds a row of durability "async" may stay in memory
DURABILITIES = ("async", "spool", "sync")


@dataclass(frozen=True, kw_only=True)
class SpoolLevel:
    """How much went in, how much is in the tables, and what waits; counted since start().

    Rows add up: received + recovered = stored + dropped + rejected + sampled_out + waiting.
    """

    received: int  # rows given to append, less those it refused with an error
    recovered: int  # rows an earlier process left in the spool, stored or rejected by this one
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
        self._writer_id = writer_id
        self._flush_within = flush_within
        self._encoder = PredictionEncoder(task)
        self._spool = Spool(spool / model / writer_id, seal_bytes=commit_bytes, clock=clock)
        self._targets: dict[Kind, TableRef] = {
            "predictions": tables.predictions(url, model, task),
            "labels": tables.labels(url, model),
        }
        self._committer = Committer(
            self._spool, self._targets, app_id=writer_id, every=commit_every
        )
        self._counting = threading.Lock()
        self._received = self._labels = self._errors = 0
        self._last_label_us = 0
        self._backlog: deque[Any] = deque()
        self._draining = threading.Lock()
        self._closing = threading.Event()
        self._drainer = threading.Thread(
            target=self._drain_often, name=f"journal backlog {writer_id}", daemon=True
        )

    def start(self) -> None:
        """Claim the spool and store what an earlier process left. Conflict: the id is in use."""
        self._spool.start()
        for target in self._targets.values():
            try:
                self._spool.number_above(commits.committed(target, self._writer_id))
            except JournalUnavailable as problem:
                logger.warning("The journal starts without its tables: %s", problem)
        self._committer.start()
        if self._async:
            self._drainer.start()

    def append(self, batch: PredictionBatch, wait: float = 0.0) -> None:
        """Where there is no room, wait so many seconds for it, then raise JournalFull; or
        JournalUnavailable, where the disk does not take the rows. With when_full "drop" the rows
        are counted as dropped instead. InputError: a batch that cannot be. After an error nothing
        of the batch is stored."""
        if not batch.ids:
            return
        rows = self._encoder.encode(batch)
        if self._async:
            self._backlog.append(rows)
        elif self._spool.write("predictions", rows, sync=self._sync):
            self._committer.wake()
        with self._counting:
            self._received += rows.num_rows

    def label(self, labels: Sequence[Label]) -> None:
        """On the disk when it returns; of labels with the same time, the last given wins."""
        if not labels:
            return
        with self._counting:
            self._last_label_us = max(self._last_label_us + 1, microseconds(self._clock()))
            received = self._last_label_us
        if self._spool.write("labels", encode_labels(labels, received), sync=True):
            self._committer.wake()
        with self._counting:
            self._labels += len(labels)

    def flush(self) -> None:
        """Everything given so far is in the tables when it returns; JournalUnavailable if it
        cannot be yet: nothing is lost then, and it will be."""
        self._drain()
        self._committer.flush(self._flush_within)

    def level(self) -> SpoolLevel:
        waiting, oldest = self._spool.waiting()
        return SpoolLevel(
            received=self._received,
            recovered=0,
            stored=self._committer.stored,
            dropped=0,
            rejected=0,
            sampled_out=0,
            waiting=0,
            memory_bytes=0,
            labels=self._labels,
            spool_bytes=waiting,
            oldest=oldest,
            errors=self._committer.errors + self._errors,
        )

    def close(self) -> None:
        """Store what waits and let go of the spool; what cannot be stored stays in it."""
        self._closing.set()
        if self._drainer.is_alive():
            self._drainer.join()
        try:
            self.flush()
        except JournalUnavailable as problem:
            logger.warning("The journal closed with rows in its spool: %s", problem)
        self._committer.stop()
        self._spool.close()

    def _drain_often(self) -> None:
        failing = False
        while not self._closing.wait(ASYNC_EVERY):
            try:
                self._drain()
                failing = False
            except JournalUnavailable as problem:
                self._errors += 1
                if not failing:  # said once, not twenty times a second
                    logger.error("Rows stay in memory until the spool takes them: %s", problem)
                failing = True

    def _drain(self) -> None:
        with self._draining:  # so that rows keep their order
            while self._backlog:
                full = self._spool.write("predictions", self._backlog[0], sync=False)
                self._backlog.popleft()
                if full:
                    self._committer.wake()
