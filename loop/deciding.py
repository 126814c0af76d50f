"""A verdict becomes a decision, and a decision to retrain becomes a run: in one transaction."""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy import Connection

from homeostat import events as types
from homeostat.identifiers import uuid7
from homeostat.records import Action, Decision, Run, Stage, Verdict, VerdictKind, VersionRef
from homeostat.state import checks, controls, events, rollouts, runs
from homeostat.state.checks import Check
from loop import measuring
from loop.context import Context
from retrain import policy

log = logging.getLogger(__name__)

REMEMBERED = 50  # runs and checks the policy looks back on


def decide_checks(context: Context, now: datetime) -> None:
    with context.state.begin() as tx:
        waiting = checks.undecided(tx, context.model)
    for check in waiting:
        _decide(context, check, now)


def decide_first(context: Context, now: datetime) -> None:
    """With no version that serves there is nothing to check: decide on that alone."""
    with context.state.begin() as tx:
        if rollouts.current(tx, context.model) is not None:
            return
        decision = policy.decide(
            None, _history(context, tx, now), context.settings, now, decision_id=uuid7()
        )
        if decision.action is Action.NOTHING or _said_before(tx, decision):
            return
        _write(context, tx, decision, None, now)


def _decide(context: Context, check: Check, now: datetime) -> None:
    with context.state.begin() as tx:
        rollout = rollouts.current(tx, context.model)
        if rollout is None or rollout.champion.version != check.version:
            # It ended after a promotion: it blames a version that serves no more.
            checks.mark_decided(tx, check.check_id)
            return
        decision = policy.decide(
            check.verdict,
            _history(context, tx, check.scheduled_at),
            context.settings,
            now,
            decision_id=uuid7(),
        )
        _write(context, tx, decision, check.verdict, now)
        checks.mark_decided(tx, check.check_id)


def _history(context: Context, tx: Connection, before: datetime) -> policy.History:
    budget = context.settings.retrain.budget
    newest = checks.newest(tx, context.model, REMEMBERED)
    rollout = rollouts.current(tx, context.model)
    champion = rollout.champion.version if rollout else None
    asked = runs.last_decision(tx, context.model, Action.ASK)
    return policy.History(
        mode=context.settings.mode,
        runs=max(
            tuple(runs.newest(tx, context.model, REMEMBERED)),
            tuple(reversed(runs.since(tx, context.model, before - budget.per))),
            key=len,
        ),
        active_run=runs.active(tx, context.model),
        paused=controls.control(tx, context.model).paused,
        has_champion=champion is not None,
        recent_kinds=tuple(
            check.verdict.kind
            for check in newest
            if check.verdict
            and check.scheduled_at < before
            and check.version == champion
            and check.verdict.kind is not VerdictKind.NO_DATA
        ),
        asked_at=asked.created_at if asked else None,
    )


def _said_before(tx: Connection, decision: Decision) -> bool:
    last = runs.newest_decisions(tx, decision.model, 1)
    return bool(last) and (last[0].action, last[0].reason) == (decision.action, decision.reason)


def _write(
    context: Context, tx: Connection, decision: Decision, verdict: Verdict | None, now: datetime
) -> None:
    repeated = _said_before(tx, decision)
    runs.decide(tx, decision)
    measuring.decided(context, decision)
    log.info("Decision: %s. %s", decision.action, decision.reason)
    if decision.action in (Action.RETRAIN, Action.PROBE):
        until = verdict.window.end if verdict else None
        start_run(tx, decision, now, train_until=until)
    elif decision.action is Action.ASK and not repeated:
        events.record(
            tx,
            types.DECISION_ASK,
            decision.model,
            now,
            reason=decision.reason,
            check_id=decision.check_id,
        )


def start_run(
    tx: Connection,
    decision: Decision,
    now: datetime,
    *,
    train_until: datetime | None,
    command: tuple[str, ...] = (),
    candidate: VersionRef | None = None,
) -> Run:
    """The run of a decision; raises Conflict when one is under way.

    With a candidate nothing is trained: that version meets the gate.
    """
    run = Run(
        run_id=uuid7(),
        model=decision.model,
        decision_id=decision.decision_id,
        action=decision.action,
        stage=Stage.PLANNED,
        verdict_kind=decision.verdict_kind,
        command=command,
        train_until=train_until,
        candidate=candidate,
        created_at=now,
        updated_at=now,
    )
    runs.start(tx, run)
    events.record(
        tx,
        types.RETRAIN_STARTED,
        decision.model,
        now,
        run_id=run.run_id,
        action=decision.action.value,
        reason=decision.reason,
        check_id=decision.check_id,
    )
    return run
