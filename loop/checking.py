"""Checks: started when due, run as a job of the monitor, written down when they end."""

from __future__ import annotations

import logging
import shutil
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from homeostat import events as types
from homeostat.errors import HomeostatError, JobError, NotReady
from homeostat.identifiers import uuid7
from homeostat.jobs import SPEC, CheckJob, CheckResult, read_result, write_atomically
from homeostat.records import Rollout, Verdict, VerdictKind, Window, to_json
from homeostat.registry import cache
from homeostat.state import checks, events, rollouts
from loop import measuring
from loop.context import Context
from loop.holder import holder_name, is_dead
from loop.server_door import flush_journal

log = logging.getLogger(__name__)

OWNER = "owner"  # file in a check's job folder: the process that waits for it
DRIFTED = (VerdictKind.HARMFUL_SHIFT, VerdictKind.CONCEPT_DRIFT, VerdictKind.BENIGN_SHIFT)


def start_due(context: Context, now: datetime) -> None:
    """Start a check when the last one began `every` ago. The schedule is read from the state."""
    with context.state.begin() as tx:
        rollout = rollouts.current(tx, context.model)
        last = checks.newest(tx, context.model)
        measured = rollout and "training" in rollouts.references_of(
            tx, context.model, rollout.champion.version
        )
    if rollout is None or not measured or (last and last[0].status == "running"):
        return
    if last and last[0].scheduled_at + context.settings.monitor.every > now:
        return
    begin(context, rollout, now)


def begin(context: Context, rollout: Rollout, now: datetime) -> str:
    """Write the check down, then start its job; the check's id."""
    flush_journal(context.settings)
    version = rollout.champion.version
    check_id = uuid7()
    folder = context.settings.jobs_path / f"check-{check_id}"
    folder.mkdir(parents=True)
    job = _job(context, rollout, check_id, now)
    write_atomically(folder / SPEC, to_json(job))
    (folder / OWNER).write_text(holder_name())
    with context.state.begin() as tx:
        checks.begin(tx, check_id, context.model, version, now)
    _start_job(context, check_id)
    return check_id


def collect(context: Context, now: datetime) -> None:
    """Write down the checks that have ended; start again those whose process is gone."""
    with context.state.begin() as tx:
        running = checks.running(tx, context.model)
    for check in running:
        finish(context, check.check_id, now)


def finish(context: Context, check_id: str, now: datetime) -> bool:
    """True once the check has ended and is written down."""
    folder = context.settings.jobs_path / f"check-{check_id}"
    name = folder.name
    exit_ = context.executor.poll(name) if context.executor.knows(name) else None
    if exit_ is None and (context.executor.knows(name) or _is_somebody_elses(folder)):
        return False
    try:
        result = read_result(folder, CheckResult)
        if result is None and exit_ is None and (folder / SPEC).exists():
            log.info("Check %s was cut off; starting it again.", check_id)
            (folder / OWNER).write_text(holder_name())
            _start_job(context, check_id)
            return False
        if result is None:
            limit = context.settings.monitor.time_limit.total_seconds()
            how = exit_.describe(limit) if exit_ else "lost its job folder"
            raise JobError(f"the check {how}", tail=exit_.tail if exit_ else "")
    except HomeostatError as error:
        _failed(context, check_id, error, now)
        return True
    _done(context, result.verdict, now)
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _is_somebody_elses(folder: Path) -> bool:
    """`homeostat check` looks after its own check; the loop takes over when it has died."""
    try:
        owner = (folder / OWNER).read_text()
    except FileNotFoundError:
        return False
    return owner != holder_name() and not is_dead(owner)


def _start_job(context: Context, check_id: str) -> None:
    name = f"check-{check_id}"
    context.executor.start_job(
        name,
        "monitor",
        "check",
        folder=context.settings.jobs_path / name,
        limit=context.settings.monitor.time_limit.total_seconds(),
    )


def _job(context: Context, rollout: Rollout, check_id: str, now: datetime) -> CheckJob:
    settings, version = context.settings, rollout.champion.version
    with context.state.begin() as tx:
        found = rollouts.references_of(tx, context.model, version)
        known = rollouts.known(tx, context.model, version)
    if known is None or "training" not in found:
        raise NotReady(
            f"version {version} has no reference to compare with; "
            "set [model] training_data and start the loop again"
        )
    production = found.get("production")
    entry = cache.entry_path(settings.cache_path, context.model, version)
    rebase_to = settings.references_path / context.model / f"{version}-production.parquet"
    rebase_to.parent.mkdir(parents=True, exist_ok=True)
    return CheckJob(
        check_id=check_id,
        project=str(settings.project),
        window=Window(
            model=context.model,
            start=max(now - settings.monitor.window, rollout.created_at),
            end=now,
            versions=(version,),
        ),
        spec=cache.read_spec(entry),
        training_reference=str(settings.home / found["training"].path),
        reference=str(settings.home / production.path) if production else None,
        rebase_to=str(rebase_to),
        baseline_error=known.baseline_error,
        baseline_rows=known.baseline_rows,
    )


def _done(context: Context, verdict: Verdict, now: datetime) -> None:
    with context.state.begin() as tx:
        check = checks.get(tx, verdict.check_id)
        before = checks.last_kind(tx, context.model, check.scheduled_at) if check else None
        rollout = rollouts.current(tx, context.model)
        stale = rollout is None or rollout.champion.version != verdict.version
        checks.finish(tx, verdict, now)
        if verdict.rebased:
            _keep_reference(context, tx, verdict, now)
        if not stale:
            _tell(tx, verdict, before, now)
    measuring.check_done(context, verdict, now)
    log.info("Check %s: %s. %s", verdict.check_id, verdict.kind, verdict.reason)


def _keep_reference(context: Context, tx: Connection, verdict: Verdict, now: datetime) -> None:
    path = context.settings.references_path / context.model
    relative = (path / f"{verdict.version}-production.parquet").relative_to(context.settings.home)
    rollouts.set_reference(
        tx,
        context.model,
        verdict.version,
        rollouts.Reference(kind="production", path=str(relative), created_at=now),
    )
    events.record(
        tx,
        types.REFERENCE_REBASED,
        context.model,
        now,
        version=verdict.version,
        rows=verdict.rows,
        check_id=verdict.check_id,
    )


def _tell(tx: Connection, verdict: Verdict, before: VerdictKind | None, now: datetime) -> None:
    """An event when the kind of verdict changes, not one a check: people tire of repeats."""
    kind = verdict.kind
    if kind == before or kind in (VerdictKind.NO_DATA, VerdictKind.UNDETERMINED):
        return
    if kind is VerdictKind.DATA_BUG:
        type_ = types.DATA_BUG
    elif kind in DRIFTED:
        type_ = types.DRIFT_DETECTED
    elif before in DRIFTED:
        type_ = types.DRIFT_CLEARED
    else:
        return
    events.record(
        tx,
        type_,
        verdict.window.model,
        now,
        kind=kind.value,
        reason=verdict.reason,
        version=verdict.version,
        check_id=verdict.check_id,
        rows=verdict.rows,
        drift_share=verdict.drift_share,
        error=verdict.errors.current if verdict.errors else None,
        baseline=verdict.errors.baseline if verdict.errors else None,
        quarantined=verdict.quarantined,
    )


def _failed(context: Context, check_id: str, error: HomeostatError, now: datetime) -> None:
    tail = str(getattr(error, "tail", ""))[-2000:]
    with context.state.begin() as tx:
        known = checks.newest(tx, context.model, limit=2)
        checks.fail(tx, check_id, f"{error}\n{tail}".strip(), now)
        if not (len(known) > 1 and known[1].status == "failed"):
            events.record(
                tx,
                types.CHECK_FAILED,
                context.model,
                now,
                check_id=check_id,
                error=str(error),
                tail=tail,
            )
    log.error("Check %s failed: %s %s", check_id, error, tail)
