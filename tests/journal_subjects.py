"""The things that must do as the laws say: the log in Delta tables, and its twin in memory.

The Delta log's writer lives in a process of its own, so that it can be killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from journal_kit import open_journal, open_writer

from homeostat.journal.delta.tables import tables_of
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.forgetting.forget import Waiting, Wanted, erase, find
from homeostat.journal.keeping.compaction import compact
from homeostat.journal.reader import Journal
from homeostat.journal.twin import MemoryJournal
from homeostat.records import Label, Task

SPAWNER = multiprocessing.get_context("forkserver")
SPAWNER.set_forkserver_preload(["journal_subjects"])
LATER = timedelta(days=10)  # the days of all rows are over


class Subject(Protocol):
    journal: Journal

    def append(self, batch: PredictionBatch, now: datetime) -> None: ...
    def label(self, labels: Sequence[Label], now: datetime) -> None: ...
    def flush(self) -> None: ...
    def restart(self) -> None: ...
    def crash(self) -> None: ...
    def compact(self, now: datetime) -> None: ...
    def forget(self, ids: Sequence[str], keys: Sequence[str]) -> None: ...
    def close(self) -> None: ...


class Given:
    """A clock that shows what it is told."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


def write_until_told(folder: Path, durability: str, orders: Any) -> None:
    """The process of a writer: one order, one answer."""
    clock = Given()
    writer = open_writer(folder, durability=durability, clock=clock)
    while True:
        what, argument, now = orders.recv()
        clock.now = now
        if what == "settled":  # "async" promises a row to the spool within 50 ms, not at once
            while writer.level().memory_bytes:
                time.sleep(0.005)
        else:
            doing: Callable[..., None] = getattr(writer, what)
            doing(*argument)
        orders.send("done")
        if what == "close":
            return


class DeltaSubject:
    def __init__(self, folder: Path, durability: str, now: datetime) -> None:
        self.journal = open_journal(folder)
        self._folder, self._durability, self._now = folder, durability, now
        self._tables = tables_of(str(folder / "journal"), "digits", Task.CLASSIFICATION)
        self._open()

    def append(self, batch: PredictionBatch, now: datetime) -> None:
        self._tell("append", batch, now=now)

    def label(self, labels: Sequence[Label], now: datetime) -> None:
        self._tell("label", labels, now=now)

    def flush(self) -> None:
        self._tell("flush")

    def restart(self) -> None:
        self.close()
        self._open()

    def crash(self) -> None:
        """kill -9; the next process finds the spool."""
        self._tell("settled")
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()
        self._orders.close()
        self._open()

    def compact(self, now: datetime) -> None:
        for table in self._tables.values():
            compact(table, now=now + LATER)

    def forget(self, ids: Sequence[str], keys: Sequence[str]) -> None:
        wanted = Wanted(ids=frozenset(ids), keys=frozenset(keys))
        found = find(self._tables["predictions"], wanted)
        erase(self._tables, wanted, found, waiting=Waiting(unfinished=timedelta(0)))

    def close(self) -> None:
        self._tell("close")
        self._process.join()
        self._orders.close()

    def _open(self) -> None:
        self._orders, theirs = SPAWNER.Pipe()
        self._process = SPAWNER.Process(
            target=write_until_told, args=(self._folder, self._durability, theirs), daemon=True
        )
        self._process.start()
        theirs.close()

    def _tell(self, what: str, *argument: Any, now: datetime | None = None) -> None:
        self._now = now or self._now
        self._orders.send((what, argument, self._now))
        assert self._orders.recv() == "done"


class MemorySubject:
    """What nothing outlives has no crash: a restart is all that can happen to it."""

    def __init__(self, now: datetime) -> None:
        self._clock = Given()
        self._clock.now = now
        self._log = MemoryJournal("digits", Task.CLASSIFICATION, clock=self._clock)
        self.journal: Journal = self._log

    def append(self, batch: PredictionBatch, now: datetime) -> None:
        self._log.append(batch)

    def label(self, labels: Sequence[Label], now: datetime) -> None:
        self._clock.now = now
        self._log.label(labels)

    def flush(self) -> None:
        self._log.flush()

    def restart(self) -> None:
        self._log.close()
        self._log.start()

    def crash(self) -> None:
        self.restart()

    def compact(self, now: datetime) -> None:
        """There are no files."""

    def forget(self, ids: Sequence[str], keys: Sequence[str]) -> None:
        self._log.forget(ids, keys)

    def close(self) -> None:
        self._log.close()
