"""When the prediction log's tables were last kept."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TIME = sa.String(32)


def upgrade() -> None:
    op.create_table(
        "upkeeps",
        sa.Column("model", sa.String(128), primary_key=True),
        sa.Column("ended_at", TIME, nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("done_at", TIME),
        sa.Column("result", sa.Text),
        sa.Column("error", sa.Text),
    )


def downgrade() -> None:
    op.drop_table("upkeeps")
