"""`python -m bench.journal_appender FOLDER ROWS BATCH`: append, and say where we stand.

A line of JSON at each tenth of the rows, and one at the end.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from homeostat.identifiers import uuid7_batch
from homeostat.journal.delta import tables
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.spooling.limits import Limits
from homeostat.journal.writer import JournalWriter
from homeostat.records import Task

MODEL = "appended"
FEATURES = tuple(f"f{number}" for number in range(32))
POOL = 200_000  # rows that are made beforehand; those of a batch begin anywhere in them
PATIENCE = 600.0
MIB = 2**20


class Rows:
    """Batches whose numbers do not repeat soon enough for a compressor to notice."""

    def __init__(self, batch: int) -> None:
        generator = np.random.default_rng(5)
        self._batch = batch
        self._features = generator.normal(size=(POOL, 32)).astype(np.float32)
        self._embedding = generator.normal(size=(POOL, 64)).astype(np.float32)
        self._chances = generator.dirichlet([1, 1, 1], POOL).astype(np.float32)
        self._said = ["012"[at] for at in self._chances.argmax(axis=1)]
        self._starts = generator.integers(0, POOL - batch, 10_000).tolist()
        self._turn = 0

    def next(self) -> PredictionBatch:
        start = self._starts[self._turn % len(self._starts)]
        self._turn += 1
        part = slice(start, start + self._batch)
        return PredictionBatch(
            ids=uuid7_batch(self._batch),
            time_us=time.time_ns() // 1000,
            version="1",
            features=FEATURES,
            matrix=self._features[part],
            tensor=True,
            predictions=self._said[part],
            probabilities=self._chances[part],
            embedding=self._embedding[part],
            latency_us=500,
        )


def main(folder: Path, rows: int, batch: int) -> None:
    url = str(folder / "journal")
    writer = JournalWriter(
        url=url,
        spool=folder / "spool",
        model=MODEL,
        task=Task.CLASSIFICATION,
        writer_id="appender",
        durability="spool",
        commit_every=timedelta(seconds=30),
        commit_bytes=64_000_000,
        limits=Limits(spool=1_000_000_000),
        flush_within=timedelta(seconds=PATIENCE),
        clock=lambda: datetime.now(UTC),
    )
    writer.start()
    made = Rows(batch)
    began, cpu = time.perf_counter(), time.process_time()
    for number in range(1, rows // batch + 1):
        writer.append(made.next(), wait=PATIENCE)
        if number * batch * 10 // rows > (number - 1) * batch * 10 // rows:
            tell(writer, number * batch, time.perf_counter() - began, time.process_time() - cpu)
    rest = rows % batch
    if rest:
        writer.append(Rows(rest).next(), wait=PATIENCE)
    writer.flush()
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    writer.close()
    handle = tables.open_table(tables.predictions(url, MODEL, Task.CLASSIFICATION))
    said = {
        "seconds": seconds,
        "cpu": used,
        "found": 0 if handle is None else handle.count(),
        "table_bytes": sum(file.stat().st_size for file in folder.rglob("*.parquet")),
    }
    print(json.dumps(said), flush=True)


def tell(writer: JournalWriter, rows: int, seconds: float, cpu: float) -> None:
    own, mapped = memory()
    level = writer.level()
    said = {
        "rows": rows,
        "seconds": seconds,
        "cpu": cpu,
        "memory": own,
        "mapped": mapped,
        "stored": level.stored,
        "spool_mib": level.spool_bytes / MIB,
    }
    print(json.dumps(said), flush=True)


def memory() -> tuple[float, float]:
    """MiB: our own, and of files."""
    status = Path("/proc/self/status").read_text()
    own, files = (
        int(status.partition(f"{name}:")[2].split()[0]) / 1024 for name in ("RssAnon", "RssFile")
    )
    return own, files


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
