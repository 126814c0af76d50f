"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TIME = sa.String(32)
ID = sa.String(64)
MODEL = sa.String(128)


def upgrade() -> None:
    op.create_table(
        "checks",
        sa.Column("check_id", ID, primary_key=True),
        sa.Column("model", MODEL, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("scheduled_at", TIME, nullable=False),
        sa.Column("finished_at", TIME),
        sa.Column("version", ID, nullable=False),
        sa.Column("kind", sa.String(32)),
        sa.Column("verdict", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("decided", sa.Boolean, nullable=False),
    )
    op.create_index("checks_by_time", "checks", ["model", "scheduled_at"])
    op.create_table(
        "decisions",
        sa.Column("decision_id", ID, primary_key=True),
        sa.Column("model", MODEL, nullable=False),
        sa.Column("check_id", ID, unique=True),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_index("decisions_by_time", "decisions", ["model", "created_at"])
    op.create_table(
        "runs",
        sa.Column("run_id", ID, primary_key=True),
        sa.Column("model", MODEL, nullable=False),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("active", MODEL, unique=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("gate", sa.Text),
    )
    op.create_index("runs_by_time", "runs", ["model", "created_at"])
    op.create_table(
        "versions",
        sa.Column("model", MODEL, primary_key=True),
        sa.Column("version", ID, primary_key=True),
        sa.Column("digest", ID, nullable=False),
        sa.Column("run_id", ID),
        sa.Column("baseline_error", sa.Text),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_table(
        "reference_sets",
        sa.Column("model", MODEL, primary_key=True),
        sa.Column("version", ID, primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_table(
        "rollouts",
        sa.Column("model", MODEL, primary_key=True),
        sa.Column("epoch", sa.Integer, primary_key=True),
        sa.Column("run_id", ID),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("mirrored", sa.Boolean, nullable=False),
        sa.UniqueConstraint("model", "run_id", name="one_promotion_a_run"),
    )
    op.create_table(
        "events",
        sa.Column("event_id", ID, primary_key=True),
        sa.Column("model", MODEL, nullable=False),
        sa.Column("type", ID, nullable=False),
        sa.Column("time", TIME, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("dispatched", sa.Boolean, nullable=False),
    )
    op.create_index("events_by_time", "events", ["model", "time"])
    op.create_index("events_to_dispatch", "events", ["dispatched"])
    op.create_table(
        "deliveries",
        sa.Column("event_id", ID, primary_key=True),
        sa.Column("endpoint", sa.String(512), primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", TIME, nullable=False),
        sa.Column("last_error", sa.Text),
        sa.Column("updated_at", TIME, nullable=False),
    )
    op.create_index("deliveries_due", "deliveries", ["status", "next_at"])
    op.create_table(
        "controls",
        sa.Column("model", MODEL, primary_key=True),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("actor", MODEL, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("name", MODEL, primary_key=True),
        sa.Column("holder", MODEL, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
    )


def downgrade() -> None:
    for table in (
        "leases",
        "controls",
        "deliveries",
        "events",
        "rollouts",
        "reference_sets",
        "versions",
        "runs",
        "decisions",
        "checks",
    ):
        op.drop_table(table)
