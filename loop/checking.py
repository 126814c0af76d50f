"""Checks: started when due, run as a job of the monitor, written down when they end."""

from __future__ import annotations

import logging
import shutil
from datetime import datetime

from sqlalchemy import Connection

from homeostat import events as types
from homeostat.errors import HomeostatError, JobError, NotReady
from homeostat.identifiers import uuid7
from homeostat.jobs import SPEC, CheckJob, CheckResult, read_result, write_atomically
from homeostat.records import Rollout, Verdict, Window, to_json
from homeostat.state import checks, events, rollouts
from homeostat.state.checks import Check
from loop import measuring, telling
from loop.champion import champion_spec
from loop.context import Context
from loop.holder import is_dead
from loop.server_door import flush_journal

log = logging.getLogger(__name__)

OWNER = "owner"  # file in a check's job folder: the process that waits for it


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


def begin(context: Context, rollout: Rollout, now: datetime, *, owner: str | None = None) -> str:
    """Write the check down, then start its job; the check's id.

    An owner looks after the check itself, beside the loop.
    """
    flush_journal(context.settings)
    version = rollout.champion.version
    check_id = uuid7()
    folder = context.settings.jobs_path / f"check-{check_id}"
    job = _job(context, rollout, check_id, now)
    folder.mkdir(parents=True)
    write_atomically(folder / SPEC, to_json(job))
    if owner is not None:
        (folder / OWNER).write_text(owner)
    with context.state.begin() as tx:
        checks.begin(tx, check_id, context.model, version, now)
    _start_job(context, check_id)
    return check_id


def collect(context: Context, now: datetime) -> None:
    """Write down the checks that have ended; start again those whose process is gone."""
    with context.state.begin() as tx:
        running = checks.running(tx, context.model)
    for check in running:
        if _has_an_owner(context, check, now):
            continue
        finish(context, check.check_id, now)


def finish(context: Context, check_id: str, now: datetime) -> bool:
    """True once the check has ended and is written down."""
    folder = context.settings.jobs_path / f"check-{check_id}"
    name = folder.name
    exit_ = context.executor.poll(name) if context.executor.knows(name) else None
    if exit_ is None and context.executor.knows(name):
        return False
    try:
        result = read_result(folder, CheckResult)
        if result is None and exit_ is None and (folder / SPEC).exists():
            log.info("Check %s was cut off; starting it again.", check_id)
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


def _has_an_owner(context: Context, check: Check, now: datetime) -> bool:
    """`homeostat check` looks after its own; the loop takes over when it died or took too long."""
    if now > check.scheduled_at + context.settings.monitor.time_limit:
        return False
    try:
        owner = (context.settings.jobs_path / f"check-{check.check_id}" / OWNER).read_text()
    except FileNotFoundError:
        return False
    return not is_dead(owner)


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
    rebase_to = settings.references_path / context.model / f"{version}-production.parquet"
    rebase_to.parent.mkdir(parents=True, exist_ok=True)
    return CheckJob(
        check_id=check_id,
        project=str(settings.project),
        window=Window(
            model=context.model,
            start=max(now - settings.monitor.window, rollout.since),
            end=now,
            versions=(version,),
        ),
        spec=champion_spec(context, version),
        training_reference=str(settings.home / found["training"].path),
        reference=str(settings.home / production.path) if production else None,
        rebase_to=str(rebase_to),
        baseline_error=known.baseline_error,
        baseline_rows=known.baseline_rows,
    )


def _done(context: Context, verdict: Verdict, now: datetime) -> None:
    with context.state.begin() as tx:
        rollout = rollouts.current(tx, context.model)
        stale = rollout is None or rollout.champion.version != verdict.version
        checks.finish(tx, verdict, now)
        if verdict.rebased:
            _keep_reference(context, tx, verdict, now)
        if not stale:
            telling.tell_verdict(tx, verdict, now)
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
