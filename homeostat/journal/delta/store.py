"""Where tables are kept: opened as they stand now, and appended to. Delta, or a twin in memory."""

from __future__ import annotations

from typing import Any, Protocol

import pyarrow as pa

from homeostat.journal.delta import commits
from homeostat.journal.delta.snapshot import Snapshot, open_snapshot
from homeostat.journal.delta.tables import TableRef, open_table, reaching


class Store(Protocol):
    def open(self, table: TableRef) -> Snapshot | None:
        """None while no row was ever stored. Raises JournalUnavailable."""

    def columns(self, table: TableRef) -> Any | None:
        """The table's schema, and nothing of its files; None while no row was ever stored. Raises
        JournalUnavailable."""

    def commit(self, table: TableRef, data: Any, *, app_id: str, version: int) -> bool:
        """False when this writer's version is there already."""

    def committed(self, table: TableRef, app_id: str) -> int:
        """The newest version of a writer that the table holds; -1 for none."""


class DeltaStore:
    """The real thing."""

    def open(self, table: TableRef) -> Snapshot | None:
        return open_snapshot(table)

    def columns(self, table: TableRef) -> Any | None:
        handle = open_table(table)
        if handle is None:
            return None
        with reaching(table):
            return pa.schema(handle.schema().to_arrow())

    def commit(self, table: TableRef, data: Any, *, app_id: str, version: int) -> bool:
        return commits.commit(table, data, app_id=app_id, version=version)

    def committed(self, table: TableRef, app_id: str) -> int:
        return commits.committed(table, app_id)
