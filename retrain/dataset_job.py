"""The dataset job: journal and old data -> the files of a run.

They are train.parquet, holdout.parquet (kept for the gate) and contradicted.json.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from homeostat.errors import NotReady
from homeostat.jobs import DatasetJob, DatasetResult, write_atomically
from homeostat.journal.reader import Journal
from homeostat.records import VerdictKind, from_json, to_json
from homeostat.settings import Settings
from retrain import tables
from retrain.training_set import contradictions, labelled_rows, split_newest, times_us

logger = logging.getLogger(__name__)

TRAIN, HOLDOUT, CONTRADICTED = "train.parquet", "holdout.parquet", "contradicted.json"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Contradicted:
    """Test rows that newer labels contradict; of this very file only."""

    test_set_sha256: str
    rows: tuple[int, ...]


def build(job: DatasetJob, settings: Settings, *, clock: Callable[[], datetime]) -> DatasetResult:
    """Write the run's data. Raises NotReady where there is nothing to train on."""
    output = Path(job.output)
    output.mkdir(parents=True, exist_ok=True)
    original = _original(settings)
    old = _old_rows(job, original)
    if old is None:
        raise NotReady("there is nothing to train on: set [model] training_data")
    schema = old.schema if original is None else original.schema
    features = tables.feature_columns(schema.names, settings.model)
    journal = _journal_rows(job, settings, schema, features, clock)
    cut = split_newest(times_us(journal), settings.gate.holdout_share, settings.gate.min_rows).cut
    new, holdout = (tables.conform(part, schema) for part in (journal[:cut], journal[cut:]))
    known, dropped = _known_contradictions(job, settings), 0
    if job.verdict_kind is VerdictKind.CONCEPT_DRIFT and job.spec is not None:
        test = _test_rows(settings)
        found = contradictions(
            old,
            new,
            holdout,
            test,
            journal=journal,
            features=features,
            target=settings.model.target,
            task=settings.model.task,
            rng=np.random.default_rng(0),
        )
        dropped = int(found.dropped_old.sum() + found.dropped_new.sum())
        old, new = (
            old.filter(pa.array(~found.dropped_old)),
            new.filter(pa.array(~found.dropped_new)),
        )
        rows = {*known.rows, *np.flatnonzero(found.contradicted_test).tolist()}
        known = Contradicted(test_set_sha256=known.test_set_sha256, rows=tuple(sorted(rows)))
    train = tables.stack([old, new], schema)
    room = settings.retrain.max_rows + (len(old) if original is None else len(original))
    train = train[max(0, len(train) - room) :]
    _write_table(output / TRAIN, train)
    _write_table(output / HOLDOUT, tables.stack([holdout], schema))
    write_atomically(output / CONTRADICTED, to_json(known))
    return DatasetResult(
        train_rows=len(train),
        new_rows=len(new),
        holdout_rows=len(holdout),
        dropped_rows=dropped,
        contradicted_test_rows=len(known.rows),
    )


def read_contradicted(path: Path, test_set: Path | None) -> Contradicted:
    """The rows in a file, as far as they are of the test set as it is now."""
    sha = file_sha256(test_set) if test_set is not None and test_set.exists() else ""
    if path.exists():
        found = from_json(path.read_bytes(), Contradicted)
        if sha and found.test_set_sha256 == sha:
            return found
    return Contradicted(test_set_sha256=sha, rows=())


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _original(settings: Settings) -> Any | None:
    path = settings.model.training_data
    return None if path is None else tables.read(path, "model.training_data")


def _old_rows(job: DatasetJob, original: Any | None) -> Any | None:
    """The champion's training set, else the training data, and the rows its gate kept."""
    base = original if job.base_train is None else tables.read(Path(job.base_train), "base_train")
    if base is None or job.base_holdout is None or not Path(job.base_holdout).exists():
        return base
    schema = base.schema if original is None else original.schema
    return tables.stack([base, tables.read(Path(job.base_holdout), "base_holdout")], schema)


def _journal_rows(
    job: DatasetJob,
    settings: Settings,
    schema: Any,
    features: tuple[str, ...],
    clock: Callable[[], datetime],
) -> Any:
    """Matured labelled rows of the time asked for, in time order, the newest max_rows."""
    model = settings.model
    journal = Journal(settings.journal_path, model.name, model.task)
    names = features if job.spec is None else job.spec.names
    start = EPOCH if job.since_us is None else EPOCH + timedelta(microseconds=job.since_us)
    until = clock() if job.until_us is None else EPOCH + timedelta(microseconds=job.until_us)
    # A first version has seen no traffic of its own: nothing in the journal is labelled for it.
    end = start if job.spec is None else until - settings.monitor.label_delay
    window = journal.window(start, end + timedelta(microseconds=job.spec is not None), names)
    if names != features and len(names) == len(features):
        # A tensor's elements without names of their own are the training data's columns in order.
        renamed = dict(zip(names, features, strict=True))
        window = window.rename_columns([renamed.get(name, name) for name in window.column_names])
    classes = model.classes or (job.spec.classes if job.spec else ())
    rows = labelled_rows(window, schema, model.target, classes)
    left_out = len(window) - window["_label"].null_count - len(rows)
    if left_out:
        logger.warning("%s labels are no values of %s and were left out", left_out, model.target)
    return rows[max(0, len(rows) - settings.retrain.max_rows) :]


def _known_contradictions(job: DatasetJob, settings: Settings) -> Contradicted:
    base = Path(job.base_contradicted) if job.base_contradicted else Path(job.output) / "none"
    return read_contradicted(base, settings.gate.test_set)


def _test_rows(settings: Settings) -> Any | None:
    path = settings.gate.test_set
    return None if path is None else tables.read(path, "gate.test_set")


def _write_table(path: Path, table: Any) -> None:
    partial = path.with_suffix(".part")
    pq.write_table(table, partial)
    partial.replace(path)
