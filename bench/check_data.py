"""`python -m bench.check_data FOLDER REFERENCE CURRENT NUMBERS CATEGORIES`: the frames of a check.

Leaves reference.parquet and current.parquet for whoever compares frames, and a project whose
journal holds the current rows, with the job for `python -m monitor check` in job/.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from homeostat import settings
from homeostat.columns import PREDICTION
from homeostat.jobs import SPEC, CheckJob
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.writer import JournalWriter
from homeostat.records import Feature, FeatureKind, ModelSpec, Task, Window, to_json

START = datetime(2026, 11, 20, 9, tzinfo=UTC)
TOML = '[model]\nname = "bench"\n'
CITIES = ("Bern", "Genoa", "Lyon", "Oslo", "Porto", "Riga")
PART = 10_000  # rows a batch of the journal


def frame(rows: int, numbers: int, categories: int, seed: int, shift: float) -> pd.DataFrame:
    """Some columns move a little with `shift`, most do not."""
    random = np.random.default_rng(seed)
    found: dict[str, object] = {
        f"x{i}": random.normal(shift * (i % 4 == 0), 1 + i / 10, rows) for i in range(numbers)
    }
    for i in range(categories):
        odds = np.ones(len(CITIES))
        odds[0] += shift * i
        found[f"c{i}"] = random.choice(CITIES, rows, p=odds / odds.sum())
    found[PREDICTION] = random.choice(["no", "yes"], rows, p=[0.7 - shift / 5, 0.3 + shift / 5])
    return pd.DataFrame(found)


def write(folder: Path, reference_rows: int, rows: int, numbers: int, categories: int) -> None:
    home = folder / ".homeostat"
    home.mkdir(parents=True)
    (folder / "homeostat.toml").write_text(TOML)
    reference = frame(reference_rows, numbers, categories, 1, 0.0)
    current = frame(rows, numbers, categories, 2, 0.3)
    reference.to_parquet(folder / "reference.parquet", index=False)
    current.to_parquet(folder / "current.parquet", index=False)
    _log(folder, current)
    features = tuple(
        Feature(
            name=name, kind=FeatureKind.NUMBER if name.startswith("x") else FeatureKind.CATEGORY
        )
        for name in current.columns
        if name != PREDICTION
    )
    spec = ModelSpec(
        model="bench", version="1", runtime="pyfunc", task=Task.CLASSIFICATION, features=features
    )
    job = CheckJob(
        check_id="bench",
        project=str(folder),
        window=Window(model="bench", start=START, end=START + timedelta(hours=1), versions=("1",)),
        spec=spec,
        training_reference=str(folder / "reference.parquet"),
        reference=str(folder / "reference.parquet"),
        rebase_to=str(folder / "rebased.parquet"),
        baseline_error=0.05,
        baseline_rows=1000,
    )
    (folder / "job").mkdir()
    (folder / "job" / SPEC).write_bytes(to_json(job))


def _log(folder: Path, rows: pd.DataFrame) -> None:
    """Into the journal, as a server would have."""
    chosen = settings.load(folder, {})
    writer = JournalWriter(
        url=chosen.journal_path,
        spool=chosen.spool_path,
        model="bench",
        task=Task.CLASSIFICATION,
        writer_id="bench",
        durability="spool",
        commit_every=timedelta(minutes=1),
        commit_bytes=10**9,
        clock=lambda: START + timedelta(hours=1),
    )
    writer.start()
    names = tuple(name for name in rows.columns if name != PREDICTION)
    for begin in range(0, len(rows), PART):
        part = rows.iloc[begin : begin + PART]
        numeric = all(name.startswith("x") for name in names)
        writer.append(
            PredictionBatch(
                ids=[f"row-{place}" for place in range(begin, begin + len(part))],
                time_us=int(START.timestamp() * 1_000_000) + begin,
                version="1",
                features=names,
                matrix=part[list(names)].to_numpy(dtype=float) if numeric else None,
                tensor=False,
                columns=None if numeric else {name: part[name].tolist() for name in names},
                predictions=part[PREDICTION].tolist(),
                probabilities=None,
                embedding=None,
                latency_us=100,
            )
        )
    writer.flush()
    writer.close()


if __name__ == "__main__":
    write(Path(sys.argv[1]), *map(int, sys.argv[2:6]))
