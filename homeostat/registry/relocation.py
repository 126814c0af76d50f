"""An embedded MLflow's database in another folder: it holds absolute paths of its artifacts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path


def relocate(database: Path, old: Path, new: Path) -> int:
    """Let every path and file URI below `old` point below `new`; how many were changed.

    Whatever table they stand in: MLflow has moved them about between its versions.
    """
    changed = 0
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            columns = connection.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()
            for column in (_quoted(name) for _, name, *_ in columns):
                for before, after in ((str(old), str(new)), (old.as_uri(), new.as_uri())):
                    done = connection.execute(
                        f"UPDATE {_quoted(table)} "  # noqa: S608 - names from the schema, quoted
                        f"SET {column} = ? || substr({column}, length(?) + 1) "
                        f"WHERE substr({column}, 1, length(?) + 1) = ? || '/'",
                        (after, before, before, before),
                    )
                    changed += done.rowcount
    return changed


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
