"""Rows, clocks and writers for the tests of the prediction log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from homeostat.errors import JournalUnavailable
from homeostat.journal.delta.commits import commit
from homeostat.journal.delta.tables import predictions, with_partitions
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.encoding.schema import microseconds
from homeostat.journal.reader import Journal
from homeostat.journal.writer import JournalWriter
from homeostat.records import Label, Task

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
EVER = (NOON - timedelta(days=30), NOON + timedelta(days=30))
PATIENCE = 60.0  # seconds, for what happens in other threads
PIXELS = ("p0", "p1", "p2")
Columns = dict[str, list[Any]]


class SteppingClock:
    """One millisecond later at every look."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def open_writer(folder: Path, **changes: Any) -> JournalWriter:
    """A started writer that commits only when told to, unless changed."""
    arguments: dict[str, Any] = {
        "url": str(folder / "journal"),
        "spool": folder / "spool",
        "model": "digits",
        "task": Task.CLASSIFICATION,
        "writer_id": "server-1",
        "durability": "spool",
        "commit_every": timedelta(hours=1),
        "commit_bytes": 64_000_000,
        "clock": SteppingClock(),
    }
    writer = JournalWriter(**(arguments | changes))
    writer.start()
    return writer


def until(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < deadline
        sleep(0.01)


def flushed(writer: JournalWriter) -> None:
    """All of it is in the tables, however short a time the writer itself waits for that."""
    deadline = monotonic() + PATIENCE
    while True:
        try:
            writer.flush()
            return
        except JournalUnavailable as problem:
            if "wait in the spool" not in str(problem) or monotonic() > deadline:
                raise


def open_journal(folder: Path, task: Task = Task.CLASSIFICATION) -> Journal:
    return Journal(str(folder / "journal"), "digits", task)


def tensor_rows(
    ids: Sequence[str],
    time: datetime = NOON,
    *,
    version: str = "1",
    value: float = 0.5,
    **more: Any,
) -> PredictionBatch:
    """Rows of a tensor model with three elements, two classes and a 4-d embedding."""
    count = len(ids)
    given: dict[str, Any] = {
        "features": PIXELS,
        "matrix": np.full((count, 3), value, np.float32) + np.arange(3, dtype=np.float32),
        "predictions": ["7"] * count,
        "probabilities": np.tile(np.array([0.25, 0.75], np.float32), (count, 1)),
        "embedding": np.tile(np.arange(4, dtype=np.float32), (count, 1)),
    }
    return PredictionBatch(
        ids=ids,
        time_us=microseconds(time),
        version=version,
        tensor=True,
        latency_us=120,
        **(given | more),
    )


def column_rows(
    ids: Sequence[str], columns: Columns, time: datetime = NOON, **more: Any
) -> PredictionBatch:
    """Rows of a model with named columns."""
    return PredictionBatch(
        ids=ids,
        time_us=microseconds(time),
        features=tuple(columns),
        columns=columns,
        tensor=False,
        latency_us=120,
        **({"version": "1", "predictions": ["yes"] * len(ids)} | more),
    )


def label(identifier: str, value: str, time: datetime = NOON, **more: str) -> Label:
    return Label(prediction_id=identifier, value=value, time=time, **more)


def ids_of(table: Any) -> list[str]:
    ids: list[str] = table["_prediction_id"].to_pylist()
    return ids


def weighted(folder: Path, ids: list[str], weights: list[float], seconds: float) -> None:
    """Rows as writers of other sampling rates leave them."""
    table = predictions(str(folder / "journal"), "digits", Task.CLASSIFICATION)
    version = int(seconds * 1000)
    rows = pa.table(
        {
            "prediction_id": ids,
            "time": pa.array([at(seconds)] * len(ids), pa.timestamp("us", "UTC")),
            "version": ["1"] * len(ids),
            "role": ["champion"] * len(ids),
            "prediction": ["7"] * len(ids),
            "weight": weights,
            "input_x": [float(n) for n in range(len(ids))],
        }
    )
    commit(table, with_partitions(rows, table), app_id="by hand", version=version)


def stored(folder: Path, table: str = "predictions") -> Counter[str]:
    """How often each id is in the files of the table, read without our reader."""
    files = DeltaTable(folder / "journal" / "digits" / table).file_uris()
    rows = duckdb.execute(f"select prediction_id from read_parquet({files})").fetchall()
    return Counter(row[0] for row in rows)
