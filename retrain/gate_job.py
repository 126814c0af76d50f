"""The gate job: both versions answer the same rows, and the gate decides on their answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from homeostat.columns import LABEL, PREDICTION
from homeostat.errors import JournalUnavailable, NotReady
from homeostat.jobs import GateJob, GateResult, write_atomically
from homeostat.journal.forgetting import traces
from homeostat.journal.reader import Journal
from homeostat.model_runtime.contract import Batch, LoadedModel
from homeostat.model_runtime.loading import load
from homeostat.model_runtime.placement import placement_of
from homeostat.records import FeatureKind, ModelSpec, Task, VersionRef, to_json
from homeostat.registry import cache
from homeostat.settings import Settings
from retrain import gate, gate_lines, tables
from retrain.dataset_job import CONTRADICTED, HOLDOUT, TRAIN, read_contradicted
from retrain.gate_lines import Line
from retrain.paired import Answers, Paired
from retrain.side_checks import Cost

REFERENCE, REPORT = "reference.parquet", "gate.json"
REFERENCE_ROWS = 20_000
LATENCY_ROWS = 64
LATENCY_SECONDS = 3.0  # of one round, at most
LATENCY_ROUNDS = 3  # a slow first round is measured again: the machine may have been busy

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class _Version:
    model: LoadedModel
    entry: Path

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec


def decide(job: GateJob, settings: Settings, *, clock: Clock = time.perf_counter) -> GateResult:
    """Load both versions, let them answer, and write the report and the candidate's reference."""
    output = Path(job.output)
    train = tables.read(output / TRAIN, "train.parquet")
    with ExitStack() as stack:
        candidate = stack.enter_context(_loaded(job.candidate, settings))
        champion = stack.enter_context(_loaded(job.champion, settings)) if job.champion else None
        report = gate.decide(
            _test(output, candidate, champion, settings),
            _holdout(output, candidate, champion, settings),
            settings=settings.gate,
            task=settings.model.task,
            candidate=job.candidate.version,
            champion=job.champion.version if job.champion else None,
            verdict_kind=job.verdict_kind,
            cost=_cost(candidate, champion, train, settings, clock),
            log=_log_line(candidate.spec, settings),
        )
        _write_reference(output, train, candidate, settings)
    write_atomically(output / REPORT, to_json(report))
    return GateResult(report=report)


def batch_of(table: Any, spec: ModelSpec, features: tuple[str, ...]) -> Batch:
    """Rows in the form the version takes; raises NotReady for a column that is not there."""
    names = _columns_for(spec, table, features)
    if spec.tensor_shape is not None or all(f.kind is FeatureKind.NUMBER for f in spec.features):
        dtype = np.float64 if spec.tensor_shape is None else np.float32
        columns = [table[name].to_numpy().astype(dtype) for name in names]
        return Batch(rows=len(table), matrix=np.stack(columns, axis=1))
    values = {
        feature.name: table[name].to_pylist()
        for feature, name in zip(spec.features, names, strict=True)
    }
    return Batch(rows=len(table), columns=values)


def _columns_for(spec: ModelSpec, table: Any, features: tuple[str, ...]) -> tuple[str, ...]:
    """Where the version's features stand in the table: under their names, else by their order."""
    names = spec.names
    if not set(names) <= set(table.column_names) and len(names) == len(features):
        names = features  # a tensor's elements without names of their own
    tables.require(table, names, f"for version {spec.version} of {spec.model}, the data")
    return names


@contextmanager
def _loaded(ref: VersionRef, settings: Settings) -> Iterator[_Version]:
    entry = cache.entry_path(settings.cache_path, settings.model.name, ref.version)
    spec = cache.verify(entry, ref.digest)
    model = load(
        entry,
        spec,
        embedding=None,
        classes=settings.model.classes,
        threads=settings.serving.threads,
        placement=placement_of(settings.serving),
    )
    try:
        yield _Version(model=model, entry=entry)
    finally:
        model.close()


def _test(
    output: Path, candidate: _Version, champion: _Version | None, settings: Settings
) -> Paired | None:
    path = settings.gate.test_set
    if path is None:
        return None
    table = tables.read(path, "gate.test_set")
    counted = np.ones(len(table), bool)
    rows = np.array(read_contradicted(output / CONTRADICTED, path).rows, dtype=int)
    counted[rows] = False
    return _paired(table, counted, candidate, champion, settings, in_time_order=False)


def _holdout(
    output: Path, candidate: _Version, champion: _Version | None, settings: Settings
) -> Paired | None:
    path = output / HOLDOUT
    if not path.exists():
        return None
    table = tables.read(path, "holdout.parquet")
    counted = np.ones(len(table), bool)
    return _paired(table, counted, candidate, champion, settings, in_time_order=True)


def _paired(
    table: Any,
    counted: Any,
    candidate: _Version,
    champion: _Version | None,
    settings: Settings,
    *,
    in_time_order: bool,
) -> Paired:
    target = settings.model.target
    tables.require(table, (target,), "the test set")
    labelled = table[target].is_valid()
    table, counted = table.filter(labelled), counted[labelled.to_numpy()]
    slices = [name for name in settings.gate.slices if name in table.column_names]
    return Paired(
        labels=_labels(table[target], candidate.spec, settings.model.task),
        candidate=_answers(table, candidate, settings),
        champion=None if champion is None else _answers(table, champion, settings),
        counted=counted,
        slices=tables.column_arrays(table, slices),
        in_time_order=in_time_order,
    )


def _labels(column: Any, spec: ModelSpec, task: Task) -> Any:
    if task is Task.REGRESSION:
        return np.asarray(column.to_numpy(), dtype=np.float64)
    return np.array(tables.class_names(column, spec.classes), dtype=str)


def _answers(table: Any, version: _Version, settings: Settings) -> Answers:
    features = _features(table, settings)
    predictions: list[Any] = []
    probabilities = []
    size = settings.serving.max_batch_rows
    for start in range(0, len(table), size):
        outputs = version.model.predict(
            batch_of(table[start : start + size], version.spec, features)
        )
        predictions += outputs.predictions
        probabilities.append(outputs.probabilities)
    known = [part for part in probabilities if part is not None]
    classes = settings.model.task is Task.CLASSIFICATION
    return Answers(
        predictions=np.array(predictions, dtype=str if classes else np.float64),
        probabilities=np.concatenate(known) if known and len(known) == len(probabilities) else None,
    )


def _features(table: Any, settings: Settings) -> tuple[str, ...]:
    return tables.feature_columns(table.column_names, settings.model)


def _cost(
    candidate: _Version, champion: _Version | None, train: Any, settings: Settings, clock: Clock
) -> Cost:
    folder = cache.model_folder(candidate.entry)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if champion is None or not len(train):
        return Cost(size=size)
    rows, features = train[:LATENCY_ROWS], _features(train, settings)
    versions = (candidate, champion)
    batches = [batch_of(rows, version.spec, features) for version in versions]
    for _ in range(LATENCY_ROUNDS):
        mine, theirs = _race(versions, batches, clock)
        if mine <= theirs * settings.gate.latency_ratio:
            break
    return Cost(candidate_seconds=mine, champion_seconds=theirs, size=size)


def _race(
    versions: tuple[_Version, _Version], batches: list[Batch], clock: Clock
) -> tuple[float, float]:
    """Median seconds of the two, who take turns so that a busy moment hits both."""
    seconds: list[list[float]] = [[], []]
    begin = clock()
    for repeat in range(32):
        for version, batch, taken in zip(versions, batches, seconds, strict=True):
            start = clock()
            version.model.predict(batch)
            taken.append(clock() - start)
        if repeat >= 4 and clock() - begin > LATENCY_SECONDS:
            break
    mine, theirs = (float(np.median(taken[1:])) for taken in seconds)
    return mine, theirs


def _log_line(spec: ModelSpec, settings: Settings) -> Line:
    journal = Journal(settings.journal_path, settings.model.name, settings.model.task)
    try:
        return gate_lines.prediction_log(journal.accepts(spec, settings.journal))
    except JournalUnavailable as problem:
        return gate_lines.unknown_log(str(problem))


def _write_reference(output: Path, train: Any, candidate: _Version, settings: Settings) -> None:
    """What the monitor will compare production with: rows trained on, and the answers to them."""
    if not len(train):
        raise NotReady("the training set is empty")
    trace = traces.read_trace(output / TRAIN)
    if len(train) > REFERENCE_ROWS:
        chosen = np.random.default_rng(0).choice(len(train), REFERENCE_ROWS, replace=False)
        kept = pa.array(np.sort(chosen))
        train, trace = train.take(kept), trace.take(kept)
    spec, features = candidate.spec, _features(train, settings)
    places = _columns_for(spec, train, features)
    reference = {name: train[place] for name, place in zip(spec.names, places, strict=True)}
    labels = _labels(train[settings.model.target], spec, settings.model.task)
    reference[PREDICTION] = pa.array(_answers(train, candidate, settings).predictions.tolist())
    reference[LABEL] = pa.array(labels.tolist())
    ids, keys = trace["prediction_id"], trace["key"]
    traces.write_traced(output / REFERENCE, pa.table(reference), ids, keys)
