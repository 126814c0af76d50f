"""The stages of a retraining run. Each is in the state before its work begins.

Killed anywhere, the next tick goes on from the stage that was written last: jobs leave their
result in a file, the user's run is found again in MLflow by its tag, a version is registered once
per run, and a promotion is one transaction that a constraint lets happen once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from homeostat import events as types
from homeostat.errors import Conflict, HomeostatError, TrainingError, Unavailable
from homeostat.executor import Exit, read_exit
from homeostat.records import Action, GateOutcome, GateReport, Mode, Run, Stage, VersionRef
from homeostat.registry.feature_names import feature_names
from homeostat.state import controls, events, rollouts, runs
from loop import measuring, retrain_jobs
from loop.context import Context
from loop.retrain_jobs import folder_of
from retrain import program, promotion

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3  # of a training that was cut off by a kill, not of one that failed


def advance(context: Context, now: datetime) -> None:
    """Take the model's run as far as it goes without waiting."""
    with context.state.begin() as tx:
        run = runs.active(tx, context.model)
        paused = controls.control(tx, context.model).paused
    _stop_what_nobody_waits_for(context, run)
    while run is not None and run.stage in STAGES and not paused:
        try:
            following = STAGES[run.stage](context, run, now)
        except Unavailable as error:
            _wait(context, run, str(error), now)
            return
        except Conflict:
            return  # a person or another loop moved it; the next tick reads it anew
        except HomeostatError as error:
            _fail(context, run, error, now)
            return
        except Exception as error:  # a bug of ours may cost a run, it may not jam the loop
            log.exception("Run %s met an error that is ours.", run.run_id)
            _fail(context, run, HomeostatError(f"internal error: {error!r}"), now)
            return
        if following is None or following.stage is run.stage:
            return
        log.info("Run %s: %s", run.run_id, following.stage)
        run = following


def _planned(context: Context, run: Run, now: datetime) -> Run | None:
    result = retrain_jobs.build_dataset(context, run)
    if result is None:
        return None
    log.info(
        "Run %s: %d training rows (%d new, %d old ones contradicted), %d kept for the gate.",
        run.run_id,
        result.train_rows,
        result.new_rows,
        result.dropped_rows,
        result.holdout_rows,
    )
    return _to(context, run, now, Stage.GATING if run.candidate else Stage.TRAINING)


def _training(context: Context, run: Run, now: datetime) -> Run | None:
    name = f"{run.run_id}-train-{run.attempt}"
    folder = context.settings.jobs_path / name
    limit = context.settings.retrain.time_limit.total_seconds()
    exit_ = context.executor.poll(name) if context.executor.knows(name) else read_exit(folder)
    if exit_ is None and context.executor.knows(name):
        return None
    if exit_ is None and folder.exists():
        return _train_again(context, run, now)
    if exit_ is None:
        _start_program(context, run, name, folder, limit)
        return None
    _require_success(exit_, limit)
    logged = context.reach("mlflow", lambda: context.registry.find_model(tag_of(run)))
    if logged is None or logged.model_uri is None:
        raise TrainingError(
            "the training program ended well but logged no model to MLflow; "
            "call mlflow.<flavor>.log_model in it, and leave MLFLOW_TRACKING_URI as it is set",
            tail=exit_.tail,
        )
    return _to(context, run, now, Stage.REGISTERING, mlflow_run_id=logged.mlflow_run_id)


def _registering(context: Context, run: Run, now: datetime) -> Run | None:
    def register() -> tuple[str, str]:
        logged = context.registry.find_model(tag_of(run))
        if logged is None or logged.model_uri is None:
            raise TrainingError("the model that this run logged is gone from MLflow")
        version = context.registry.register(logged, run.run_id)
        names = feature_names(context.settings)
        return version, context.registry.fetch(version, feature_names=names).digest

    version, digest = context.reach("mlflow", register)
    ref = VersionRef(version=version, digest=digest)
    with context.state.begin() as tx:
        rollouts.add_version(tx, context.model, ref, run.run_id, now)
        events.record(
            tx,
            types.CANDIDATE_REGISTERED,
            context.model,
            now,
            run_id=run.run_id,
            version=version,
            mlflow_run_id=run.mlflow_run_id,
        )
        return runs.advance(tx, run, now, stage=Stage.GATING, candidate=ref, waiting_for=None)


def _gating(context: Context, run: Run, now: datetime) -> Run | None:
    result = retrain_jobs.gate(context, run)
    if result is None or run.candidate is None:
        return None
    report, version = result.report, run.candidate.version
    _keep_evidence(context, run, report)
    with context.state.begin() as tx:
        runs.save_gate(tx, run.run_id, report)
        retrain_jobs.keep_baseline(tx, context, report, folder_of(context, run), now)
        passed = report.outcome is GateOutcome.PASS
        events.record(
            tx,
            types.GATE_PASSED if passed else types.GATE_REJECTED,
            context.model,
            now,
            run_id=run.run_id,
            version=version,
            reason=report.reason,
            candidate_test=report.candidate_test,
            champion_test=report.champion_test,
            candidate_holdout=report.candidate_holdout,
            champion_holdout=report.champion_holdout,
        )
        following = _after_gate(context.settings.mode, run, passed)
        if following is Stage.PROPOSED:
            events.record(
                tx, types.MODEL_PROPOSED, context.model, now, run_id=run.run_id, version=version
            )
        ended = runs.advance(tx, run, now, stage=following, waiting_for=None)
    if ended.stage.final:
        measuring.run_ended(context, ended)
    return ended


def _after_gate(mode: Mode, run: Run, passed: bool) -> Stage:
    if not passed:
        return Stage.REJECTED
    if run.action is Action.PROBE or mode is not Mode.ACT:
        return Stage.PROPOSED
    return Stage.PROMOTING


def _promoting(context: Context, run: Run, now: datetime) -> Run | None:
    if run.candidate is None:
        raise TrainingError("the run has no candidate to promote")
    with context.state.begin() as tx:
        if controls.control(tx, context.model).paused:
            return None
        report = runs.gate_of(tx, run.run_id)
        rollout = rollouts.current(tx, context.model)
        champion = rollout.champion.version if rollout else None
        if champion == run.candidate.version:  # a person was faster
            return runs.advance(tx, run, now, stage=Stage.PROMOTED, waiting_for=None)
        if report is not None and report.champion != champion:
            return retrain_jobs.gate_anew(tx, context, run, now)
        promotion.promote(
            tx,
            context.model,
            run.candidate,
            run_id=run.run_id,
            reason=report.reason if report else "",
            actor="loop",
            now=now,
        )
        ended = runs.advance(tx, run, now, stage=Stage.PROMOTED, waiting_for=None)
    measuring.run_ended(context, ended)
    return ended


STAGES: Mapping[Stage, Callable[[Context, Run, datetime], Run | None]] = {
    Stage.PLANNED: _planned,
    Stage.TRAINING: _training,
    Stage.REGISTERING: _registering,
    Stage.GATING: _gating,
    Stage.PROMOTING: _promoting,
}


def _stop_what_nobody_waits_for(context: Context, run: Run | None) -> None:
    """A run that a person ended leaves no program behind."""
    for name in context.executor.names():
        ours = name.startswith(("check-", "measure-", "score-", "upkeep"))
        if not ours and not (run and name.startswith(run.run_id)):
            context.executor.stop(name)


def tag_of(run: Run) -> str:
    """What the user's MLflow run is found by: an attempt that was cut off is never taken."""
    return f"{run.run_id}.{run.attempt}"


def _to(context: Context, run: Run, now: datetime, stage: Stage, **changes: object) -> Run:
    with context.state.begin() as tx:
        return runs.advance(tx, run, now, stage=stage, waiting_for=None, **changes)


def _wait(context: Context, run: Run, for_what: str, now: datetime) -> None:
    if run.waiting_for == for_what:
        return
    log.warning("Run %s waits at stage %s: %s", run.run_id, run.stage, for_what)
    with context.state.begin() as tx:
        runs.advance(tx, run, now, waiting_for=for_what)


def _fail(context: Context, run: Run, error: HomeostatError, now: datetime) -> None:
    tail = str(getattr(error, "tail", ""))
    log.error("Run %s failed at stage %s: %s\n%s", run.run_id, run.stage, error, tail)
    with context.state.begin() as tx:
        ended = runs.advance(tx, run, now, stage=Stage.FAILED, error=str(error), waiting_for=None)
        events.record(
            tx,
            types.RETRAIN_FAILED,
            context.model,
            now,
            run_id=run.run_id,
            stage=run.stage.value,
            error=str(error),
            tail=tail[-2000:],
        )
    measuring.run_ended(context, ended)


def _require_success(exit_: Exit, limit: float) -> None:
    if not exit_.ok:
        raise TrainingError(f"the training program {exit_.describe(limit)}", tail=exit_.tail)


def _train_again(context: Context, run: Run, now: datetime) -> Run:
    """The loop was killed while the program ran, and the program with it: a new attempt."""
    if run.attempt >= MAX_ATTEMPTS:
        raise TrainingError(f"the training was cut off {run.attempt} times; giving up")
    with context.state.begin() as tx:
        runs.advance(tx, run, now, attempt=run.attempt + 1)
    return run


def _start_program(context: Context, run: Run, name: str, folder: Path, limit: float) -> None:
    output = folder / "output"
    command = program.command_line(
        context.settings, run, folder_of(context, run) / "train.parquet", output
    )
    context.reach("mlflow", context.registry.prepare)
    environ = program.environment(
        context.executor.environ,
        context.settings,
        tag=tag_of(run),
        experiment=context.settings.registry.experiment or context.model,
        tracking_uri=context.settings.tracking_uri,
    )
    output.mkdir(parents=True)
    context.executor.start_program(
        name,
        command,
        folder=folder,
        limit=limit,
        environ=environ,
        cwd=context.settings.project,
    )


def _keep_evidence(context: Context, run: Run, report: GateReport) -> None:
    """The reference and the gate's report become artifacts of the version's MLflow run."""
    names = [
        name
        for name in ("reference.parquet", "gate.json", "contradicted.json")
        if (folder_of(context, run) / name).exists()
    ]
    version = report.candidate

    def keep() -> None:
        mlflow_run_id = run.mlflow_run_id or context.registry.version_run(version)
        if mlflow_run_id:
            context.registry.log_files(mlflow_run_id, folder_of(context, run), names, "homeostat")
        context.registry.set_version_tags(version, {"homeostat.gate": report.outcome.value})

    context.reach("mlflow", keep)
