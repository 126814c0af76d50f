"""Checks: begun, ended with a verdict or an error, and decided upon once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row, insert, select, update

from homeostat.records import Verdict, from_json, to_json
from homeostat.state.schema import checks


@dataclass(frozen=True, kw_only=True)
class Check:
    check_id: str
    model: str
    status: str  # running, done, failed
    scheduled_at: datetime
    finished_at: datetime | None
    version: str
    verdict: Verdict | None
    error: str | None


def begin(tx: Connection, check_id: str, model: str, version: str, now: datetime) -> None:
    tx.execute(
        insert(checks).values(
            check_id=check_id,
            model=model,
            status="running",
            scheduled_at=now,
            version=version,
            decided=False,
        )
    )


def finish(tx: Connection, verdict: Verdict, now: datetime) -> None:
    _end(
        tx,
        verdict.check_id,
        status="done",
        finished_at=now,
        kind=verdict.kind.value,
        verdict=to_json(verdict).decode(),
    )


def fail(tx: Connection, check_id: str, error: str, now: datetime) -> None:
    _end(tx, check_id, status="failed", finished_at=now, error=error, decided=True)


def mark_decided(tx: Connection, check_id: str) -> None:
    _end(tx, check_id, decided=True)


def forget_running(tx: Connection, model: str) -> None:
    """Where their jobs are not: the next check looks at the same rows."""
    tx.execute(checks.delete().where(checks.c.model == model, checks.c.status == "running"))


def running(tx: Connection, model: str) -> list[Check]:
    return _all(tx, checks.c.model == model, checks.c.status == "running")


def undecided(tx: Connection, model: str) -> list[Check]:
    """Oldest first."""
    return _all(tx, checks.c.model == model, checks.c.status == "done", checks.c.decided.is_(False))


def newest(tx: Connection, model: str, limit: int = 1) -> list[Check]:
    """Newest first, whatever their status."""
    rows = tx.execute(
        select(checks)
        .where(checks.c.model == model)
        .order_by(checks.c.scheduled_at.desc())
        .limit(limit)
    )
    return [_check(row) for row in rows]


def get(tx: Connection, check_id: str) -> Check | None:
    found = _all(tx, checks.c.check_id == check_id)
    return found[0] if found else None


def _all(tx: Connection, *conditions) -> list[Check]:  # type: ignore[no-untyped-def]
    rows = tx.execute(select(checks).where(*conditions).order_by(checks.c.scheduled_at))
    return [_check(row) for row in rows]


def _end(tx: Connection, check_id: str, **values) -> None:  # type: ignore[no-untyped-def]
    tx.execute(update(checks).where(checks.c.check_id == check_id).values(**values))


def _check(row: Row) -> Check:  # type: ignore[type-arg]
    return Check(
        check_id=row.check_id,
        model=row.model,
        status=row.status,
        scheduled_at=row.scheduled_at,
        finished_at=row.finished_at,
        version=row.version,
        verdict=from_json(row.verdict, Verdict) if row.verdict else None,
        error=row.error,
    )
