"""The jobs of a retraining run: its training set and its gate, each in a child process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from homeostat.errors import TrainingError
from homeostat.jobs import (
    SPEC,
    DatasetJob,
    DatasetResult,
    GateJob,
    GateResult,
    read_result,
    write_atomically,
)
from homeostat.records import GateReport, Run, Stage, VersionRef, to_json
from homeostat.state import rollouts, runs
from loop.champion import champion_spec
from loop.context import Context

R = TypeVar("R")


def folder_of(context: Context, run: Run) -> Path:
    """What the run leaves: its training set, holdout, reference, gate report."""
    return context.settings.runs_path / run.run_id


def build_dataset(context: Context, run: Run) -> DatasetResult | None:
    """None while the job runs."""
    name = f"{run.run_id}-dataset"
    return _run(context, name, "dataset", DatasetResult, lambda: _dataset_spec(context, run))


def gate(context: Context, run: Run) -> GateResult | None:
    """None while the job runs."""
    name = f"{run.run_id}-gate"
    return _run(context, name, "gate", GateResult, lambda: _gate_spec(context, run))


def gate_anew(tx: Connection, context: Context, run: Run, now: datetime) -> Run:
    """The champion it was gated against serves no more: what it showed then proves nothing now."""
    shutil.rmtree(context.settings.jobs_path / f"{run.run_id}-gate", ignore_errors=True)
    return runs.advance(tx, run, now, stage=Stage.GATING, waiting_for=None)


def forget_measurement(context: Context, version: VersionRef) -> None:
    """So that a measurement that failed can be tried again."""
    for verb in ("dataset", "gate"):
        folder = context.settings.jobs_path / f"measure-{version.version}-{verb}"
        shutil.rmtree(folder, ignore_errors=True)


def measure(context: Context, version: VersionRef) -> GateReport | None:
    """The gate without an opponent, for a version that no run of ours made; None while it runs.

    Only its reference and its error matter: the outcome decides nothing.
    """
    folder = measured_folder(context, version)
    name = f"measure-{version.version}"
    project = str(context.settings.project)
    dataset = _run(
        context,
        f"{name}-dataset",
        "dataset",
        DatasetResult,
        lambda: DatasetJob(
            run_id=name,
            project=project,
            output=str(folder),
            spec=None,
            verdict_kind=None,
            base_train=None,
            base_holdout=None,
            base_contradicted=None,
            since_us=None,
            until_us=None,
        ),
    )
    if dataset is None:
        return None
    result = _run(
        context,
        f"{name}-gate",
        "gate",
        GateResult,
        lambda: GateJob(
            run_id=name,
            project=project,
            output=str(folder),
            candidate=version,
            champion=None,
            verdict_kind=None,
        ),
    )
    return result.report if result else None


def measured_folder(context: Context, version: VersionRef) -> Path:
    folder = context.settings.runs_path / f"measure-{version.version}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def keep_baseline(
    tx: Connection, context: Context, report: GateReport, folder: Path, now: datetime
) -> None:
    """What later checks compare the version with: its reference, and the error it promises."""
    version = report.candidate
    rollouts.set_baseline(tx, context.model, version, report.baseline_error, report.baseline_rows)
    path = (folder / "reference.parquet").relative_to(context.settings.home)
    rollouts.set_reference(
        tx,
        context.model,
        version,
        rollouts.Reference(kind="training", path=str(path), created_at=now),
    )


def _run(
    context: Context, name: str, verb: str, result_type: type[R], spec_of: Callable[[], object]
) -> R | None:
    """Start a job, or collect it: its result, or None while it runs."""
    folder = context.settings.jobs_path / name
    if context.executor.knows(name):
        exit_ = context.executor.poll(name)
        if exit_ is None:
            return None
        result = read_result(folder, result_type)
        if result is None:
            limit = context.settings.gate.time_limit.total_seconds()
            raise TrainingError(f"the {verb} job {exit_.describe(limit)}", tail=exit_.tail)
        return result
    if folder.exists() and (found := read_result(folder, result_type)) is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SPEC, to_json(spec_of()))
    context.executor.start_job(
        name,
        "retrain",
        verb,
        folder=folder,
        limit=context.settings.gate.time_limit.total_seconds(),
    )
    return None


def _dataset_spec(context: Context, run: Run) -> DatasetJob:
    settings, output = context.settings, folder_of(context, run)
    output.mkdir(parents=True, exist_ok=True)
    with context.state.begin() as tx:
        rollout = rollouts.current(tx, context.model)
        champion = rollout and rollouts.known(tx, context.model, rollout.champion.version)
        parent = runs.get(tx, champion.run_id) if champion and champion.run_id else None
    spec = None
    if champion:
        spec = champion_spec(context, champion.ref.version)

    def left(name: str) -> str | None:
        path = folder_of(context, parent) / name if parent else None
        return str(path) if path and path.exists() else None

    since, until = parent and parent.train_until, run.train_until
    return DatasetJob(
        run_id=run.run_id,
        project=str(settings.project),
        output=str(output),
        spec=spec,
        verdict_kind=run.verdict_kind,
        base_train=left("train.parquet"),
        base_holdout=left("holdout.parquet"),
        base_contradicted=left("contradicted.json"),
        since_us=int(since.timestamp() * 1e6) if since else None,
        until_us=int(until.timestamp() * 1e6) if until else None,
    )


def _gate_spec(context: Context, run: Run) -> GateJob:
    if run.candidate is None:
        raise TrainingError("the run has no candidate to gate")
    with context.state.begin() as tx:
        rollout = rollouts.current(tx, context.model)
    return GateJob(
        run_id=run.run_id,
        project=str(context.settings.project),
        output=str(folder_of(context, run)),
        candidate=run.candidate,
        champion=rollout.champion if rollout else None,
        verdict_kind=run.verdict_kind,
    )
