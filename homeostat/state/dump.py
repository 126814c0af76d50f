"""One model's state as a file, and back: from any database into any other, over schema versions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import msgspec
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, MetaData, Select, Table, delete, func, insert, select
from sqlalchemy.engine import make_url

from homeostat.errors import Conflict, IntegrityError, NotReady
from homeostat.state.schema import metadata
from homeostat.state.store import State, engine_of, migrate, open_state, revision_of

LEASES = "leases"  # of processes that are not there after a restore
TOGETHER = 500  # rows of one statement


def dump(url: str, model: str, file: IO[bytes]) -> None:
    """Write the model's rows of one moment, one JSON line each; writers are not held up.

    Raises NotReady where there is no state yet.
    """
    with _at_one_moment(url) as connection:
        revision = revision_of(connection)
        if revision is None:
            raise NotReady("there is no state yet; start the loop with `homeostat up`")
        file.write(msgspec.json.encode({"revision": revision}) + b"\n")
        found = MetaData()
        names = [name for name in metadata.tables if name != LEASES]
        found.reflect(connection, only=lambda name, _: name in names)
        for table in found.sorted_tables:
            for row in connection.execute(_rows_of(table, found, model)).mappings():
                plain = {str(name): value for name, value in row.items()}
                line = msgspec.json.encode({"table": str(table.name), "row": plain})
                file.write(line + b"\n")


def unpack(file: IO[bytes], database: Path) -> State:
    """A new SQLite database with the rows of a dump, migrated to the newest schema.

    Raises IntegrityError for what is no dump, or one of a newer program.
    """
    engine = engine_of(f"sqlite:///{database}")
    try:
        lines = _lines(file)
        _fill(engine, str(next(lines, {})["revision"]), lines)
    except (KeyError, msgspec.DecodeError) as error:
        raise IntegrityError(f"the state in this backup cannot be read: {error}") from error
    except CommandError as error:
        raise IntegrityError(
            f"the state in this backup is of a newer version of this program ({error}); "
            "restore it with that one"
        ) from error
    finally:
        engine.dispose()
    return open_state(f"sqlite:///{database}")


def put(source: State, target: State, model: str, *, replace: bool) -> None:
    """All rows of the model in one transaction; Conflict where the target has some already,
    unless they are to be replaced."""
    with source.begin() as reading, target.begin() as writing:
        tables = [table for table in metadata.sorted_tables if table.name != LEASES]
        tables.sort(key=lambda table: "model" in table.c)  # the others' rows are found by events
        for table in tables:
            if replace:
                writing.execute(_delete_of(table, model))
            elif _count(writing, table, model):
                raise Conflict(
                    f'the state database holds something of "{model}" already; --force replaces it'
                )
        for table in tables:
            rows = [dict(row) for row in reading.execute(select(table)).mappings()]
            for start in range(0, len(rows), TOGETHER):
                writing.execute(insert(table), rows[start : start + TOGETHER])


def _rows_of(table: Table, found: MetaData, model: str) -> Select[Any]:
    """Several models may share a database."""
    if "model" in table.c:
        return select(table).where(table.c.model == model)
    events = found.tables["events"]
    mine = select(events.c.event_id).where(events.c.model == model)
    return select(table).where(table.c.event_id.in_(mine))


def _delete_of(table: Table, model: str) -> Any:
    if "model" in table.c:
        return delete(table).where(table.c.model == model)
    events = metadata.tables["events"]
    mine = select(events.c.event_id).where(events.c.model == model)
    return delete(table).where(table.c.event_id.in_(mine))


def _count(connection: Connection, table: Table, model: str) -> int:
    rows = _rows_of(table, metadata, model).subquery()
    return connection.execute(select(func.count()).select_from(rows)).scalar_one()


def _fill(engine: Engine, revision: str, lines: Iterator[dict[str, Any]]) -> None:
    migrate(engine, revision)
    found = MetaData()
    with engine.begin() as connection:
        found.reflect(connection)
        waiting: list[dict[str, Any]] = []
        last = ""
        for line in lines:
            if waiting and (line["table"] != last or len(waiting) >= TOGETHER):
                connection.execute(insert(found.tables[last]), waiting)
                waiting = []
            last = str(line["table"])
            waiting.append(line["row"])
        if waiting:
            connection.execute(insert(found.tables[last]), waiting)


def _lines(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    for line in file:
        yield msgspec.json.decode(line, type=dict[str, Any])


@contextmanager
def _at_one_moment(url: str) -> Iterator[Connection]:
    """Reads in it see one state of the database, and nobody waits for them."""
    if make_url(url).get_backend_name() == "sqlite":
        with TemporaryDirectory(prefix="homeostat-state-") as folder:
            copy = Path(folder) / "state.db"
            copy_sqlite(_file_of(url), copy)
            with _connection(engine_of(f"sqlite:///{copy}")) as connection:
                yield connection
        return
    engine = engine_of(url).execution_options(isolation_level="REPEATABLE READ")
    with _connection(engine) as connection:
        yield connection


@contextmanager
def _connection(engine: Engine) -> Iterator[Connection]:
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def copy_sqlite(source: Path, copy: Path) -> None:
    """A consistent copy of a database that others write to. Raises NotReady where there is none."""
    if not source.exists():
        raise NotReady(f"there is no database {source} yet; start with `homeostat up`")
    with (
        closing(sqlite3.connect(source)) as reading,
        closing(sqlite3.connect(copy)) as writing,
    ):
        reading.backup(writing)


def _file_of(url: str) -> Path:
    return Path(make_url(url).database or "")
