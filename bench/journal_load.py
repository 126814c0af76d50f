"""`python -m bench.journal_load FOLDER WRITER`: rows and labels into a log until it is killed.

Whatever the log has taken is acknowledged on standard output, a line each, after it was taken.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from homeostat.identifiers import uuid7_batch
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.encoding.schema import microseconds
from homeostat.journal.spooling.limits import Limits
from homeostat.journal.writer import JournalWriter
from homeostat.records import Label, Task

MODEL = "killed"
FEATURES = tuple(f"f{number}" for number in range(8))
LABEL_EVERY = 7  # batches


def now() -> datetime:
    return datetime.now(UTC)


def url_of(folder: Path) -> str:
    return str(folder / "journal")


def open_writer(folder: Path, writer_id: str) -> JournalWriter:
    """With commits so often that kills hit them."""
    writer = JournalWriter(
        url=url_of(folder),
        spool=folder / "spool",
        model=MODEL,
        task=Task.CLASSIFICATION,
        writer_id=writer_id,
        durability="spool",
        commit_every=timedelta(seconds=0.05),
        commit_bytes=200_000,
        limits=Limits(spool=2_000_000),
        clock=now,
    )
    writer.start()
    return writer


def main(folder: Path, writer_id: str) -> None:
    writer = open_writer(folder, writer_id)
    generator = np.random.default_rng()
    count = 0
    while True:
        count += 1
        rows = int(generator.integers(1, 21))
        ids = uuid7_batch(rows)
        writer.append(batch_of(ids, generator), wait=60.0)
        said = "".join(f"row {each}\n" for each in ids)
        if count % LABEL_EVERY == 0:
            writer.label([Label(prediction_id=each, value="7", time=now()) for each in ids])
            said += "".join(f"label {each}\n" for each in ids)
        os.write(1, said.encode())


def batch_of(ids: list[str], generator: np.random.Generator) -> PredictionBatch:
    return PredictionBatch(
        ids=ids,
        time_us=microseconds(now()),
        version="1",
        features=FEATURES,
        matrix=generator.random((len(ids), len(FEATURES)), dtype=np.float32),
        tensor=True,
        predictions=["7"] * len(ids),
        embedding=generator.random((len(ids), 16), dtype=np.float32),
        latency_us=100,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
