"""Decisions and the retraining runs they start. One run a model at a time, by a constraint."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from homeostat.errors import Conflict
from homeostat.records import Action, Decision, GateReport, Run, from_json, to_json
from homeostat.state.schema import decisions, runs


def decide(tx: Connection, decision: Decision) -> None:
    """Raises Conflict when the check was decided upon before."""
    try:
        tx.execute(
            insert(decisions).values(
                decision_id=decision.decision_id,
                model=decision.model,
                check_id=decision.check_id,
                action=decision.action.value,
                created_at=decision.created_at,
                record=to_json(decision).decode(),
            )
        )
    except IntegrityError:
        raise Conflict(f"check {decision.check_id} was decided upon already") from None


def newest_decisions(tx: Connection, model: str, limit: int = 20) -> list[Decision]:
    rows = tx.execute(
        select(decisions.c.record)
        .where(decisions.c.model == model)
        .order_by(decisions.c.created_at.desc(), decisions.c.decision_id.desc())
        .limit(limit)
    )
    return [from_json(row.record, Decision) for row in rows]


def last_decision(tx: Connection, model: str, *actions: Action) -> Decision | None:
    row = tx.execute(
        select(decisions.c.record)
        .where(decisions.c.model == model, decisions.c.action.in_([a.value for a in actions]))
        .order_by(decisions.c.created_at.desc(), decisions.c.decision_id.desc())
        .limit(1)
    ).scalar()
    return from_json(row, Decision) if row else None


def start(tx: Connection, run: Run) -> None:
    """Raises Conflict when a run of this model is under way."""
    try:
        tx.execute(
            insert(runs).values(
                run_id=run.run_id,
                model=run.model,
                stage=run.stage.value,
                active=run.model,
                created_at=run.created_at,
                record=to_json(run).decode(),
            )
        )
    except IntegrityError:
        raise Conflict(
            f"a retraining run of {run.model} is under way already; see `homeostat status`"
        ) from None


def advance(tx: Connection, run: Run, now: datetime, **changes: Any) -> Run:
    """Write the run with these fields changed; the new record.

    Raises Conflict when the stored run is no longer at the stage the caller saw: another loop,
    or a person, moved it meanwhile.
    """
    new = replace(run, updated_at=now, **changes)
    if new.stage.final and new.finished_at is None:
        new = replace(new, finished_at=now)
    done = tx.execute(
        update(runs)
        .where(runs.c.run_id == run.run_id, runs.c.stage == run.stage.value)
        .values(
            stage=new.stage.value,
            active=None if new.stage.final else run.model,
            record=to_json(new).decode(),
        )
    )
    if done.rowcount != 1:
        raise Conflict(f"run {run.run_id} is no longer at stage {run.stage}")
    return new


def save_gate(tx: Connection, run_id: str, report: GateReport) -> None:
    tx.execute(update(runs).where(runs.c.run_id == run_id).values(gate=to_json(report).decode()))


def gate_of(tx: Connection, run_id: str) -> GateReport | None:
    text = tx.execute(select(runs.c.gate).where(runs.c.run_id == run_id)).scalar()
    return from_json(text, GateReport) if text else None


def active(tx: Connection, model: str) -> Run | None:
    text = tx.execute(select(runs.c.record).where(runs.c.active == model)).scalar()
    return from_json(text, Run) if text else None


def get(tx: Connection, run_id: str) -> Run | None:
    text = tx.execute(select(runs.c.record).where(runs.c.run_id == run_id)).scalar()
    return from_json(text, Run) if text else None


def newest(tx: Connection, model: str, limit: int = 20) -> list[Run]:
    """Newest first."""
    rows = tx.execute(
        select(runs.c.record)
        .where(runs.c.model == model)
        .order_by(runs.c.created_at.desc(), runs.c.run_id.desc())
        .limit(limit)
    )
    return [from_json(row.record, Run) for row in rows]


def since(tx: Connection, model: str, time: datetime) -> list[Run]:
    """Oldest first: runs begun at or after a time."""
    rows = tx.execute(
        select(runs.c.record)
        .where(runs.c.model == model, runs.c.created_at >= time)
        .order_by(runs.c.created_at)
    )
    return [from_json(row.record, Run) for row in rows]
