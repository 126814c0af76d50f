"""The dataset job: journal and old data -> the files of a run.

They are train.parquet, holdout.parquet (kept for the gate) and contradicted.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from homeostat.errors import NotReady
from homeostat.jobs import DatasetJob, DatasetResult, write_atomically
from homeostat.records import VerdictKind, from_json, to_json
from homeostat.settings import Settings
from retrain import tables, traced
from retrain.logged_rows import EPOCH, NOTHING, Span, new_rows, span_of
from retrain.training_set import (
    contradictions,
    first_changed_row,
    split_newest,
    times_us,
)

TRAIN, HOLDOUT, CONTRADICTED = "train.parquet", "holdout.parquet", "contradicted.json"
USED = "used.json"  # up to when the journal was read
HARM = (VerdictKind.HARMFUL_SHIFT, VerdictKind.CONCEPT_DRIFT)


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
    schema = traced.plain(old.schema) if original is None else original.schema
    span = _span(job, settings, clock)
    parts = _parts(job, settings, old, schema, span)
    known = _known_contradictions(job, settings)
    dropped = 0
    if job.verdict_kind is VerdictKind.CONCEPT_DRIFT and job.spec is not None:
        parts, known, dropped = _without_contradicted(parts, known, settings)
    # The project's own training data stays, what labels add to it is bounded: newer rows, however
    # many, may not push out what the test set stands for.
    columns = traced.traced(schema)
    labelled = tables.stack([parts.old[parts.original :], parts.new], columns)
    newest = labelled[max(0, len(labelled) - settings.retrain.max_rows) :]
    train = tables.stack([parts.old[: parts.original], newest], columns)
    traced.write(output / TRAIN, train, schema)
    traced.write(output / HOLDOUT, tables.stack([parts.holdout], columns), schema)
    write_atomically(output / CONTRADICTED, to_json(known))
    write_atomically(
        output / USED, to_json(_Used(until_us=span.looked_until_us, original_rows=parts.original))
    )
    return DatasetResult(
        train_rows=len(train),
        new_rows=len(parts.new),
        holdout_rows=len(parts.holdout),
        dropped_rows=dropped,
        contradicted_test_rows=len(known.rows),
    )


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """All in the training data's columns, with their ids and keys, but `journal`: the rows of new
    and holdout as logged."""

    old: Any
    new: Any
    holdout: Any
    journal: Any
    features: tuple[str, ...]
    original: int  # so many of the old rows, the first ones, are [model] training_data
    start: int  # the first row of the journal after the change


def _parts(job: DatasetJob, settings: Settings, old: Any, schema: Any, span: Span) -> _Parts:
    features = tables.feature_columns(schema.names, settings.model)
    journal = new_rows(job, settings, schema, features, span)
    start = 0
    if job.spec is not None and job.verdict_kind in HARM:
        start = first_changed_row(journal, settings.model.task, job.spec.version)
    # Only rows from after the change are shared between training and gate: the newest part of
    # all would be all of them when the change is young, and the candidate would not see it.
    gate = settings.gate
    cut = start + split_newest(times_us(journal)[start:], gate.holdout_share, gate.min_rows)
    return _Parts(
        old=old,
        new=tables.conform(journal[:cut], traced.traced(schema)),
        holdout=tables.conform(journal[cut:], traced.traced(schema)),
        journal=journal,
        features=features,
        original=_original_rows(job, old, settings),
        start=start,
    )


def _without_contradicted(
    parts: _Parts, known: Contradicted, settings: Settings
) -> tuple[_Parts, Contradicted, int]:
    found = contradictions(
        parts.old,
        parts.new,
        parts.holdout,
        _test_rows(settings),
        start=parts.start,
        features=parts.features,
        target=settings.model.target,
        task=settings.model.task,
        rng=np.random.default_rng(0),
    )
    kept = replace(
        parts,
        old=parts.old.filter(pa.array(~found.dropped_old)),
        original=int((~found.dropped_old[: parts.original]).sum()),
        new=parts.new.filter(pa.array(~found.dropped_new)),
    )
    rows = {*known.rows, *np.flatnonzero(found.contradicted_test).tolist()}
    dropped = int(found.dropped_old.sum() + found.dropped_new.sum())
    return kept, replace(known, rows=tuple(sorted(rows))), dropped


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
    base = original if job.base_train is None else traced.read(job.base_train, "base_train")
    if base is None or job.base_holdout is None or not Path(job.base_holdout).exists():
        return base
    schema = traced.plain(base.schema) if original is None else original.schema
    return tables.stack(
        [base, traced.read(job.base_holdout, "base_holdout")], traced.traced(schema)
    )


def _span(job: DatasetJob, settings: Settings, clock: Callable[[], datetime]) -> Span:
    if job.spec is None:  # a first version has seen no traffic of its own
        return NOTHING
    until = clock() if job.until_us is None else _moment(job.until_us)
    since_us = _used_before(job).until_us if job.since_us is None else job.since_us
    since = None if since_us is None else _moment(since_us)
    return span_of(since, until, settings.monitor.label_delay)


def _used_before(job: DatasetJob) -> _Used:
    """What the champion's own training set was made of."""
    path = Path(job.base_train).with_name(USED) if job.base_train else None
    if path is None or not path.exists():
        return _Used(until_us=None)
    return from_json(path.read_bytes(), _Used)


def _original_rows(job: DatasetJob, old: Any, settings: Settings) -> int:
    if job.base_train is None:
        return len(old) if settings.model.training_data is not None else 0
    return min(_used_before(job).original_rows, len(old))


@dataclass(frozen=True, kw_only=True)
class _Used:
    until_us: int | None
    original_rows: int = 0


def _moment(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


def _known_contradictions(job: DatasetJob, settings: Settings) -> Contradicted:
    base = Path(job.base_contradicted) if job.base_contradicted else Path(job.output) / "none"
    return read_contradicted(base, settings.gate.test_set)


def _test_rows(settings: Settings) -> Any | None:
    path = settings.gate.test_set
    return None if path is None else tables.read(path, "gate.test_set")
