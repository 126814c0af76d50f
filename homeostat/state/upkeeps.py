"""The upkeep of the prediction log's tables: when it ran last, what it did, how often it failed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from homeostat.jobs import UpkeepResult
from homeostat.records import from_json, to_json
from homeostat.state.schema import upkeeps


@dataclass(frozen=True, kw_only=True)
class Upkeep:
    ended_at: datetime  # the last one, well or not; before the first: when the loop saw the model
    started_at: datetime | None  # of the one under way
    failures: int  # in a row, up to now
    done_at: datetime | None
    result: UpkeepResult | None  # of the last one that ended well
    error: str | None  # of the last one, where it failed


def standing(tx: Connection, model: str, now: datetime) -> Upkeep:
    """How it stands; the first call writes down that the time to the first one begins."""
    row = tx.execute(select(upkeeps).where(upkeeps.c.model == model)).one_or_none()
    if row is None:
        tx.execute(insert(upkeeps).values(model=model, ended_at=now, failures=0))
        return Upkeep(
            ended_at=now, started_at=None, failures=0, done_at=None, result=None, error=None
        )
    return Upkeep(
        ended_at=row.ended_at,
        started_at=row.started_at,
        failures=row.failures,
        done_at=row.done_at,
        result=from_json(row.result, UpkeepResult) if row.result else None,
        error=row.error,
    )


def begin(tx: Connection, model: str, now: datetime) -> None:
    _set(tx, model, started_at=now)


def finish(tx: Connection, model: str, result: UpkeepResult, now: datetime) -> None:
    _set(
        tx,
        model,
        ended_at=now,
        started_at=None,
        failures=0,
        done_at=now,
        result=to_json(result).decode(),
        error=None,
    )


def fail(tx: Connection, model: str, error: str, now: datetime) -> int:
    """How many have failed in a row now."""
    failures = standing(tx, model, now).failures + 1
    _set(tx, model, ended_at=now, started_at=None, failures=failures, error=error)
    return failures


def forget_running(tx: Connection, model: str) -> None:
    """Where its job is not: the next one does what it would have done."""
    _set(tx, model, started_at=None)


def _set(tx: Connection, model: str, **values: object) -> None:
    tx.execute(update(upkeeps).where(upkeeps.c.model == model).values(**values))
