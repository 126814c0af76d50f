"""Run by Alembic, on the connection that the store hands over."""

from __future__ import annotations

from alembic import context

from homeostat.state.schema import metadata
from homeostat.state.store import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
