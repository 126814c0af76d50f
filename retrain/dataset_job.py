"""The dataset job: journal and old data -> the files of a run.

They are train.parquet, holdout.parquet (kept for the gate) and contradicted.json.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from homeostat.columns import KEY, LABEL, LABEL_TIME, TIME
from homeostat.errors import NotReady
from homeostat.jobs import DatasetJob, DatasetResult, write_atomically
from homeostat.journal.reader import Journal
from homeostat.records import VerdictKind, from_json, to_json
from homeostat.settings import Settings
from retrain import tables, traced
from retrain.logged_inputs import require_inputs, with_inputs
from retrain.training_set import (
    contradictions,
    first_changed_row,
    labelled_rows,
    split_newest,
    times_us,
)

logger = logging.getLogger(__name__)

TRAIN, HOLDOUT, CONTRADICTED = "train.parquet", "holdout.parquet", "contradicted.json"
USED = "used.json"  # up to when the journal was read
HARM = (VerdictKind.HARMFUL_SHIFT, VerdictKind.CONCEPT_DRIFT)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LATE = 10  # windows before the last training set that are looked through for late labels


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


def _parts(job: DatasetJob, settings: Settings, old: Any, schema: Any, span: _Span) -> _Parts:
    features = tables.feature_columns(schema.names, settings.model)
    journal = _journal_rows(job, settings, schema, features, span)
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


def _journal_rows(
    job: DatasetJob, settings: Settings, schema: Any, features: tuple[str, ...], span: _Span
) -> Any:
    """Matured labelled rows of the span, in time order, the newest max_rows."""
    model = settings.model
    names = features if job.spec is None else job.spec.names
    if job.spec is not None:
        require_inputs(settings.journal, names, features)
    journal = Journal(settings.journal_path, model.name, model.task)
    window = journal.window(span.read_from, span.end, names, also=[KEY])
    window = with_inputs(window, names)
    if names != features and len(names) == len(features):
        # A tensor's elements without names of their own are the training data's columns in order.
        renamed = dict(zip(names, features, strict=True))
        window = window.rename_columns([renamed.get(name, name) for name in window.column_names])
    # What was labelled only after the last training set was built is new as well.
    new = pc.less_equal(window[LABEL_TIME], span.until)
    if span.since is not None:
        late = pc.greater(window[LABEL_TIME], span.since)
        new = pc.and_kleene(new, pc.or_kleene(pc.greater_equal(window[TIME], span.start), late))
    window = window.filter(new)
    classes = model.classes or (job.spec.classes if job.spec else ())
    rows = labelled_rows(window, schema, model.target, classes)
    left_out = len(window) - window[LABEL].null_count - len(rows)
    if left_out:
        logger.warning("%s labels are no values of %s and were left out", left_out, model.target)
    return rows[max(0, len(rows) - settings.retrain.max_rows) :]


@dataclass(frozen=True, kw_only=True)
class _Span:
    """The time of the rows that are new: start <= time < end, labelled until `until`."""

    since: datetime | None  # up to when earlier training sets looked; None: there was none
    until: datetime
    start: datetime
    end: datetime
    read_from: datetime  # earlier than start: labels come late

    @property
    def looked_until_us(self) -> int | None:
        return None if self.until == EPOCH else (self.until - EPOCH) // MICROSECOND


def _span(job: DatasetJob, settings: Settings, clock: Callable[[], datetime]) -> _Span:
    if job.spec is None:  # a first version has seen no traffic of its own
        return _Span(since=None, until=EPOCH, start=EPOCH, end=EPOCH, read_from=EPOCH)
    delay = settings.monitor.label_delay
    until = clock() if job.until_us is None else _moment(job.until_us)
    end = until - delay + MICROSECOND
    since_us = _used_before(job).until_us if job.since_us is None else job.since_us
    if since_us is None:
        return _Span(since=None, until=until, start=EPOCH, end=end, read_from=EPOCH)
    since = _moment(since_us)
    start = since - delay + MICROSECOND
    read_from = start - LATE * settings.monitor.window
    return _Span(since=since, until=until, start=start, end=end, read_from=read_from)


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
