"""Events and their deliveries: an outbox, written in the transaction that made them true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from homeostat.identifiers import uuid7
from homeostat.records import Event, from_json, to_json
from homeostat.state.schema import deliveries, events


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One event on its way to one endpoint."""

    event: Event
    endpoint: str
    attempts: int


@dataclass(frozen=True, kw_only=True)
class OutboxLevel:
    waiting: int
    oldest: datetime | None


def record(tx: Connection, type_: str, model: str, now: datetime, **data: Any) -> Event:
    """Write an event down; it is delivered once the transaction is committed."""
    event = Event(event_id=uuid7(), type=type_, model=model, time=now, data=data)
    tx.execute(
        insert(events).values(
            event_id=event.event_id,
            model=model,
            type=type_,
            time=now,
            record=to_json(event).decode(),
            dispatched=False,
        )
    )
    return event


def newest(tx: Connection, model: str, limit: int = 50) -> list[Event]:
    """Newest first."""
    rows = tx.execute(
        select(events.c.record)
        .where(events.c.model == model)
        .order_by(events.c.time.desc(), events.c.event_id.desc())
        .limit(limit)
    )
    return [from_json(row.record, Event) for row in rows]


def newest_of(tx: Connection, model: str, type_: str, limit: int = 50) -> list[Event]:
    """Newest first: events of one type."""
    rows = tx.execute(
        select(events.c.record)
        .where(events.c.model == model, events.c.type == type_)
        .order_by(events.c.time.desc(), events.c.event_id.desc())
        .limit(limit)
    )
    return [from_json(row.record, Event) for row in rows]


def last(tx: Connection, model: str, types: Sequence[str]) -> Event | None:
    """The newest event of these types."""
    text = tx.execute(
        select(events.c.record)
        .where(events.c.model == model, events.c.type.in_(types))
        .order_by(events.c.time.desc(), events.c.event_id.desc())
        .limit(1)
    ).scalar()
    return from_json(text, Event) if text else None


def undispatched(tx: Connection, limit: int = 100) -> list[Event]:
    """Oldest first: events not yet turned into deliveries."""
    rows = tx.execute(
        select(events.c.record)
        .where(events.c.dispatched.is_(False))
        .order_by(events.c.time, events.c.event_id)
        .limit(limit)
    )
    return [from_json(row.record, Event) for row in rows]


def dispatch(tx: Connection, event: Event, endpoints: Sequence[str], now: datetime) -> None:
    """Turn an event into one delivery an endpoint, due at once."""
    for endpoint in endpoints:
        tx.execute(
            insert(deliveries).values(
                event_id=event.event_id,
                endpoint=endpoint,
                status="waiting",
                attempts=0,
                next_at=now,
                updated_at=now,
            )
        )
    tx.execute(update(events).where(events.c.event_id == event.event_id).values(dispatched=True))


def due(
    tx: Connection, now: datetime, limit: int = 20, *, endpoint: str | None = None
) -> list[Delivery]:
    """Oldest first: deliveries whose time has come, of one endpoint or of all."""
    to_it = () if endpoint is None else (deliveries.c.endpoint == endpoint,)
    return _waiting(tx, limit, deliveries.c.next_at <= now, *to_it)


def strays(tx: Connection, endpoints: Sequence[str], limit: int = 100) -> list[Delivery]:
    """Deliveries that wait for none of these endpoints: nobody would ever send them."""
    return _waiting(tx, limit, deliveries.c.endpoint.not_in(endpoints))


def _waiting(tx: Connection, limit: int, *conditions: ColumnElement[bool]) -> list[Delivery]:
    rows = tx.execute(
        select(events.c.record, deliveries.c.endpoint, deliveries.c.attempts)
        .join(events, events.c.event_id == deliveries.c.event_id)
        .where(deliveries.c.status == "waiting", *conditions)
        .order_by(deliveries.c.next_at, deliveries.c.event_id)
        .limit(limit)
    )
    return [
        Delivery(event=from_json(r.record, Event), endpoint=r.endpoint, attempts=r.attempts)
        for r in rows
    ]


def settle(
    tx: Connection,
    delivery: Delivery,
    now: datetime,
    *,
    status: str,
    next_at: datetime | None = None,
    error: str | None = None,
) -> None:
    """Write down how an attempt ended: delivered, waiting (again at next_at) or dead."""
    tx.execute(
        update(deliveries)
        .where(
            deliveries.c.event_id == delivery.event.event_id,
            deliveries.c.endpoint == delivery.endpoint,
        )
        .values(
            status=status,
            attempts=delivery.attempts + 1,
            next_at=next_at or now,
            last_error=error,
            updated_at=now,
        )
    )


def outbox_level(tx: Connection) -> OutboxLevel:
    row = tx.execute(
        select(func.count(), func.min(events.c.time))
        .select_from(deliveries.join(events, events.c.event_id == deliveries.c.event_id))
        .where(deliveries.c.status == "waiting")
    ).one()
    return OutboxLevel(waiting=row[0], oldest=row[1])
