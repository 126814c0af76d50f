"""Opening the state database: SQLite in WAL mode by default, migrated to the newest schema."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from homeostat.errors import SettingsError, StateUnavailable

# Beside MLflow's own `alembic_version` when both live in one PostgreSQL schema.
VERSION_TABLE = "homeostat_alembic_version"


class State:
    """A migrated database. One a process; safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction: all of it or nothing. Raises StateUnavailable when it cannot be had."""
        try:
            with self.engine.begin() as connection:
                yield connection
        except OperationalError as error:
            raise _away(self.engine, error) from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise _away(self.engine, error) from error
            raise

    def close(self) -> None:
        self.engine.dispose()


def open_state(url: str) -> State:
    """Connect and bring the schema to the newest version.

    Raises SettingsError for a URL that cannot be right, StateUnavailable for one that may be later.
    """
    engine = engine_of(url)
    try:
        if engine.dialect.name == "sqlite":
            _prepare_sqlite(engine)
        migrate(engine)
    except (DBAPIError, OSError) as error:
        raise _away(engine, error) from error
    return State(engine)


def engine_of(url: str) -> Engine:
    """Not connected yet. Raises SettingsError."""
    try:
        return create_engine(make_url(url), pool_pre_ping=True)
    except ModuleNotFoundError as error:
        message = f"needs the package {error.name}: pip install 'homeostat[postgres]'"
    except ArgumentError:  # also for databases SQLAlchemy does not know
        message = "not the URL of a database; such as postgresql+psycopg://user@host/name"
    raise SettingsError(message, key="state.url")


def _away(engine: Engine, error: Exception) -> StateUnavailable:
    cause = str(error).splitlines()[0]
    return StateUnavailable(
        f"the state database {engine.url.render_as_string(hide_password=True)} "
        f"does not answer: {cause}"
    )


def _prepare_sqlite(engine: Engine) -> None:
    if engine.url.database:
        Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)

    @event.listens_for(engine, "connect")
    def _pragmas(connection, _record):  # type: ignore[no-untyped-def]
        connection.isolation_level = None  # so that BEGIN IMMEDIATE below is ours
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout=10000")
        _write_ahead(cursor)
        cursor.execute("PRAGMA synchronous=FULL")  # a promotion survives power loss
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # Take the write lock at once: a transaction that reads and then writes
        # would otherwise fail with "database is locked" when two processes do it.
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Only one of a fresh file's first openers can switch it, and SQLite lets none wait."""
    for _ in range(200):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            time.sleep(0.05)
    cursor.execute("PRAGMA journal_mode=WAL")


def migrate(engine: Engine, revision: str = "head") -> None:
    """Bring the schema up to a revision; CommandError for one that this program does not know."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    head = ScriptDirectory.from_config(config).get_current_head()
    with engine.begin() as connection:
        if revision != "head" or revision_of(connection) != head:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)


def revision_of(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()
