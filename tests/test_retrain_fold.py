"""The training set is folded from the log: no row is lost, and never are all in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from homeostat.identifiers import uuid7
from homeostat.jobs import DatasetJob
from homeostat.journal.delta import tables
from homeostat.journal.delta.commits import commit
from homeostat.journal.encoding.arrays import FLOATS, TIME
from homeostat.journal.encoding.schema import microseconds
from homeostat.journal.reader import Journal
from homeostat.records import Feature, Label, ModelSpec, Task, VerdictKind, to_json
from homeostat.settings import load

WIDTH, COMMITS, ROWS, EVERY = 64, 30, 20_000, 100  # every 100th row has a label
NAMES = tuple(f"p{i}" for i in range(WIDTH))
START = datetime(2026, 5, 4, tzinfo=UTC)
TOML = """
[model]
name = "digits"
training_data = "train.parquet"
[retrain]
command = ["true"]
"""
BUILD = """
import json, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
import pyarrow as pa
from homeostat.jobs import DatasetJob
from homeostat.records import from_json
from homeostat.settings import load
from retrain import dataset_job
job = from_json(Path(sys.argv[1]).read_bytes(), DatasetJob)
before = pa.total_allocated_bytes()
result = dataset_job.build(job, load(Path(job.project), {}), clock=lambda: datetime.now(UTC))
rows = result.new_rows + result.holdout_rows
print(json.dumps({"rows": rows, "peak": pa.default_memory_pool().max_memory() - before}))
"""


def log_rows(url: str) -> list[str]:
    """A row a millisecond; each row's first element is its number. The ids."""
    table = tables.predictions(url, "digits", Task.CLASSIFICATION)
    ids: list[str] = []
    for turn in range(COMMITS):
        numbers = np.arange(turn * ROWS, (turn + 1) * ROWS)
        times = microseconds(START) + numbers * 1000
        values = np.zeros((ROWS, WIDTH), np.float32)
        values[:, 0] = numbers
        mine = [uuid7(int(time) * 1000) for time in times]
        columns: dict[str, Any] = {
            "prediction_id": mine,
            "time": pa.array(times).cast(TIME),
            "version": ["1"] * ROWS,
            "role": ["champion"] * ROWS,
            "prediction": ["7"] * ROWS,
            "weight": np.ones(ROWS),
            "input": pa.ListArray.from_arrays(
                np.arange(0, ROWS * WIDTH + 1, WIDTH, dtype=np.int32), values.ravel()
            ).cast(FLOATS),
        }
        dated = tables.with_partitions(pa.table(columns), table)
        commit(table, dated, app_id="server", version=turn)
        ids += mine
    return ids


def test_no_batch_is_lost_and_the_log_is_never_whole_in_memory(tmp_path: Path) -> None:
    """Of 600,000 rows in many files 6,000 have labels: each of them is in the training set or
    kept for the gate, in order and with its own inputs; what Arrow holds at most is a
    fraction of what the whole window takes."""
    (tmp_path / "homeostat.toml").write_text(TOML)
    settings = load(tmp_path, {})
    old = pd.DataFrame(np.zeros((10, WIDTH), np.float32), columns=list(NAMES))
    old.assign(target=7).to_parquet(tmp_path / "train.parquet")
    ids = log_rows(settings.journal_path)
    labelled = range(0, len(ids), EVERY)
    Journal(settings.journal_path, "digits", Task.CLASSIFICATION).add_labels(
        [
            Label(prediction_id=ids[n], value="8", time=START + timedelta(milliseconds=n))
            for n in labelled
        ],
        writer_id="import",
        now=START + timedelta(hours=1),
    )
    job = DatasetJob(
        run_id="run-1",
        project=str(tmp_path),
        output=str(tmp_path / "out"),
        spec=ModelSpec(
            model="digits",
            version="1",
            runtime="torch",
            task=Task.CLASSIFICATION,
            features=tuple(Feature(name=name) for name in NAMES),
            tensor_shape=(WIDTH,),
        ),
        verdict_kind=VerdictKind.HARMFUL_SHIFT,
        base_train=None,
        base_holdout=None,
        base_contradicted=None,
        since_us=None,
        until_us=microseconds(START + timedelta(days=1)),
    )
    (tmp_path / "job.json").write_bytes(to_json(job))
    child = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path / "job.json")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    said = json.loads(child.stdout)
    assert said["rows"] == len(labelled)
    train, holdout = (
        pq.read_table(tmp_path / "out" / f"{n}.parquet") for n in ("train", "holdout")
    )
    numbers = [*train["p0"].to_pylist()[len(old) :], *holdout["p0"].to_pylist()]
    assert numbers == [float(n) for n in labelled]
    inputs = len(ids) * WIDTH * 4  # bytes; a window of all takes five times that
    assert said["peak"] < 2 * inputs
