"""Days of rows for the log, 100 columns wide, as servers commit them: every 30 seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from homeostat.identifiers import uuid7
from homeostat.journal.delta import tables
from homeostat.journal.delta.commits import commit
from homeostat.journal.delta.tables import TableRef
from homeostat.journal.encoding.arrays import FLOATS, TIME
from homeostat.journal.encoding.schema import column_of, microseconds
from homeostat.journal.keeping.compaction import compact
from homeostat.journal.reader import Journal
from homeostat.records import Task

MODEL = "wide"
FEATURES = tuple(f"f{n:03d}" for n in range(100))
BEGIN = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND_US = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How much is logged; rows come evenly."""

    days: int
    rows_a_second: int
    commit_seconds: int = 30

    @property
    def commits_a_day(self) -> int:
        return 86_400 // self.commit_seconds


class Days:
    """A log that is filled day by day."""

    def __init__(self, url: str, shape: Shape) -> None:
        self._url, self._shape = url, shape
        self._random = np.random.default_rng(7)
        self._commits = 0

    @property
    def journal(self) -> Journal:
        return Journal(self._url, MODEL, Task.CLASSIFICATION)

    @property
    def table(self) -> TableRef:
        return tables.predictions(self._url, MODEL, Task.CLASSIFICATION)

    def past(self, done: Callable[[], None]) -> None:
        """All days but the last, as upkeep leaves them: an hour a commit, then put together."""
        for day in range(self._shape.days - 1):
            for hour in range(24):
                start = BEGIN + day * DAY + timedelta(hours=hour)
                self._commit(start, 3600)
            self.compact()
            done()

    def last(self, commits: int) -> Iterator[float]:
        """The seconds that each commit of the last day took."""
        seconds = self._shape.commit_seconds
        for turn in range(commits):
            start = BEGIN + (self._shape.days - 1) * DAY + timedelta(seconds=turn * seconds)
            yield self._commit(start, seconds)

    def compact(self) -> None:
        """As the job on a schedule does it, some days later."""
        compact(self.table, now=BEGIN + (self._shape.days + 2) * DAY)

    def _commit(self, start: datetime, seconds: int) -> float:
        rows = self._rows(start, seconds)
        self._commits += 1
        began = time.perf_counter()
        commit(self.table, rows, app_id="bench", version=self._commits)
        return time.perf_counter() - began

    def _rows(self, start: datetime, seconds: int) -> Any:
        count = seconds * self._shape.rows_a_second
        times = microseconds(start) + np.arange(count) * (SECOND_US // self._shape.rows_a_second)
        vectors = self._random.normal(size=(count, 16)).astype(np.float32)
        columns: dict[str, Any] = {
            "prediction_id": [uuid7(int(each) * 1000) for each in times],
            "time": pa.array(times).cast(TIME),
            "version": ["1"] * count,
            "role": ["champion"] * count,
            "prediction": ["yes"] * count,
            "embedding": pa.array(list(vectors), FLOATS),
            "weight": np.ones(count),
        }
        inputs = self._random.normal(size=(len(FEATURES), count))
        columns |= {column_of(name): inputs[at] for at, name in enumerate(FEATURES)}
        return tables.with_partitions(pa.table(columns), self.table)
