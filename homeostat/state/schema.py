"""The tables. A record is kept whole as JSON beside the few columns that queries need."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Dialect,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator


class UtcTime(TypeDecorator[datetime]):
    """An aware time as ISO text in UTC of fixed width: the same, and sortable, on any database."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromisoformat(value)


metadata = MetaData()

checks = Table(
    "checks",
    metadata,
    Column("check_id", String(64), primary_key=True),
    Column("model", String(128), nullable=False),
    Column("status", String(16), nullable=False),  # running, done, failed
    Column("scheduled_at", UtcTime, nullable=False),
    Column("finished_at", UtcTime),
    Column("version", String(64), nullable=False),
    Column("kind", String(32)),
    Column("verdict", Text),
    Column("error", Text),
    Column("decided", Boolean, nullable=False, default=False),
    Index("checks_by_time", "model", "scheduled_at"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("decision_id", String(64), primary_key=True),
    Column("model", String(128), nullable=False),
    Column("check_id", String(64), unique=True),  # one verdict is decided once
    Column("action", String(16), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("record", Text, nullable=False),
    Index("decisions_by_time", "model", "created_at"),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("model", String(128), nullable=False),
    Column("stage", String(16), nullable=False),
    Column("active", String(128), unique=True),  # the model while under way: one run at a time
    Column("created_at", UtcTime, nullable=False),
    Column("record", Text, nullable=False),
    Column("gate", Text),
    Index("runs_by_time", "model", "created_at"),
)

versions = Table(
    "versions",
    metadata,
    Column("model", String(128), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("run_id", String(64)),  # ours, not MLflow's; null: registered by somebody else
    Column("baseline_error", Text),  # JSON: [error, rows]
    Column("created_at", UtcTime, nullable=False),
)

references = Table(
    "reference_sets",
    metadata,
    Column("model", String(128), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("kind", String(16), primary_key=True),  # training, production
    Column("path", Text, nullable=False),  # relative to the home folder
    Column("created_at", UtcTime, nullable=False),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("model", String(128), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("run_id", String(64)),
    Column("created_at", UtcTime, nullable=False),
    Column("record", Text, nullable=False),
    Column("mirrored", Boolean, nullable=False, default=False),  # to MLflow's aliases
    UniqueConstraint("model", "run_id", name="one_promotion_a_run"),
)

events = Table(
    "events",
    metadata,
    Column("event_id", String(64), primary_key=True),
    Column("model", String(128), nullable=False),
    Column("type", String(64), nullable=False),
    Column("time", UtcTime, nullable=False),
    Column("record", Text, nullable=False),
    Column("dispatched", Boolean, nullable=False, default=False),
    Index("events_by_time", "model", "time"),
    Index("events_to_dispatch", "dispatched"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("event_id", String(64), primary_key=True),
    Column("endpoint", String(512), primary_key=True),
    Column("status", String(16), nullable=False),  # waiting, delivered, dead
    Column("attempts", Integer, nullable=False),
    Column("next_at", UtcTime, nullable=False),
    Column("last_error", Text),
    Column("updated_at", UtcTime, nullable=False),
    Index("deliveries_due", "status", "next_at"),
)

controls = Table(
    "controls",
    metadata,
    Column("model", String(128), primary_key=True),
    Column("paused", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("updated_at", UtcTime, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("holder", String(128), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)

upkeeps = Table(
    "upkeeps",
    metadata,
    Column("model", String(128), primary_key=True),
    Column("ended_at", UtcTime, nullable=False),  # the last one, well or not; first: the loop began
    Column("started_at", UtcTime),  # null while none is under way
    Column("failures", Integer, nullable=False),  # in a row
    Column("done_at", UtcTime),  # the last one that ended well
    Column("result", Text),
    Column("error", Text),
)
