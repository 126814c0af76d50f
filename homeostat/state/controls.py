"""What a person says to the loop, and who may be the loop: pause, resume, the lease."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, select, update

from homeostat.state.schema import controls, leases


@dataclass(frozen=True, kw_only=True)
class Control:
    paused: bool = False
    reason: str = ""
    actor: str = ""
    updated_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Lease:
    holder: str
    epoch: int
    expires_at: datetime


def control(tx: Connection, model: str) -> Control:
    row = tx.execute(select(controls).where(controls.c.model == model)).one_or_none()
    if row is None:
        return Control()
    return Control(paused=row.paused, reason=row.reason, actor=row.actor, updated_at=row.updated_at)


def set_paused(
    tx: Connection, model: str, paused: bool, *, reason: str, actor: str, now: datetime
) -> None:
    tx.execute(controls.delete().where(controls.c.model == model))
    tx.execute(
        insert(controls).values(
            model=model, paused=paused, reason=reason, actor=actor, updated_at=now
        )
    )


def lease(tx: Connection, name: str) -> Lease | None:
    row = tx.execute(select(leases).where(leases.c.name == name)).one_or_none()
    if row is None:
        return None
    return Lease(holder=row.holder, epoch=row.epoch, expires_at=row.expires_at)


def take_lease(
    tx: Connection, name: str, holder: str, now: datetime, ttl: timedelta
) -> Lease | None:
    """Take or renew; None while another holder's lease has not run out.

    The epoch grows with each change of holder, so that one who slept through the end of its lease
    can tell that it is no longer the one.
    """
    held = lease(tx, name)
    if held is None:
        tx.execute(insert(leases).values(name=name, holder=holder, epoch=1, expires_at=now + ttl))
        return Lease(holder=holder, epoch=1, expires_at=now + ttl)
    if held.holder != holder and held.expires_at > now:
        return None
    epoch = held.epoch + (held.holder != holder)
    taken = tx.execute(
        update(leases)
        .where(leases.c.name == name, leases.c.holder == held.holder, leases.c.epoch == held.epoch)
        .values(holder=holder, epoch=epoch, expires_at=now + ttl)
    )
    return Lease(holder=holder, epoch=epoch, expires_at=now + ttl) if taken.rowcount == 1 else None


def release_lease(tx: Connection, name: str, holder: str) -> None:
    """Let another take it at once; the row stays, for its epoch."""
    held = lease(tx, name)
    if held is not None and held.holder == holder:
        past = datetime(1970, 1, 1, tzinfo=held.expires_at.tzinfo)
        tx.execute(update(leases).where(leases.c.name == name).values(expires_at=past))
