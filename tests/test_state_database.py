"""The state database: its schema, several processes at once, and its absence."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from homeostat.errors import SettingsError, StateUnavailable
from homeostat.state import controls, events
from homeostat.state.schema import metadata
from homeostat.state.store import VERSION_TABLE, open_state

ROOT = Path(__file__).parent.parent


def test_the_migrations_make_the_schema_that_the_code_declares(tmp_path: Path) -> None:
    """Alembic finds no difference, in tables, columns, types, indexes or constraints."""
    state = open_state(f"sqlite:///{tmp_path}/state.db")
    with state.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []
        named = {c["name"] for c in inspect(connection).get_unique_constraints("rollouts")}
    state.close()
    assert named == {"one_promotion_a_run"}


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    """What was written is there."""
    url = f"sqlite:///{tmp_path}/deep/er/state.db"
    state = open_state(url)
    with state.begin() as tx:
        told = events.record(tx, "model.promoted", "shop", datetime.now(UTC))
    state.close()
    state = open_state(url)
    with state.begin() as tx:
        assert events.newest(tx, "shop") == [told]
    state.close()


WRITER = """
import sys
from datetime import UTC, datetime
from homeostat.state import controls, events
from homeostat.state.store import open_state
state, name = open_state(sys.argv[1]), sys.argv[2]
for number in range(30):
    with state.begin() as tx:  # read, then write: what a database under two writers gets wrong
        seen = len(events.newest(tx, "shop", limit=1000))
        events.record(tx, "test.written", "shop", datetime.now(UTC), seen=seen, by=name)
"""


def test_processes_that_open_and_write_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    """A fresh database, three writers: nobody fails, and each saw all that came before it."""
    url = f"sqlite:///{tmp_path}/state.db"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url, str(number)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    said = [child.communicate(timeout=120)[1] for child in children]
    assert [text for text, child in zip(said, children, strict=True) if child.returncode] == []
    state = open_state(url)
    with state.begin() as tx:
        written = events.newest(tx, "shop", limit=1000)
    state.close()
    assert len({event.data["by"] for event in written}) == 3
    assert sorted(event.data["seen"] for event in written) == list(range(90))


def test_opening_waits_for_whoever_writes_into_a_fresh_file(tmp_path: Path) -> None:
    """SQLite itself would fail at once here, instead of waiting."""
    first = sqlite3.connect(tmp_path / "state.db", isolation_level=None, check_same_thread=False)
    first.execute("BEGIN IMMEDIATE")
    first.execute("CREATE TABLE mine (number INTEGER)")
    threading.Timer(0.3, first.execute, ["COMMIT"]).start()
    state = open_state(f"sqlite:///{tmp_path}/state.db")
    with state.engine.connect() as connection:
        assert "mine" in inspect(connection).get_table_names()
    state.close()
    first.close()


def test_a_database_that_goes_away_is_told_and_comes_back(tmp_path: Path) -> None:
    """StateUnavailable while it is away; the same object works again afterwards."""
    folder, hidden = tmp_path / "home", tmp_path / "elsewhere"
    state = open_state(f"sqlite:///{folder}/state.db")
    with state.begin() as tx:
        assert controls.lease(tx, "loop") is None
    state.engine.dispose()  # a new connection is needed, as after any restart
    folder.rename(hidden)
    with (
        pytest.raises(StateUnavailable, match=r"home/state\.db does not answer"),
        state.begin() as tx,
    ):
        controls.lease(tx, "loop")
    hidden.rename(folder)
    with state.begin() as tx:
        assert controls.lease(tx, "loop") is None
    state.close()


def test_one_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    """A file in the way, a folder, another kind of file."""
    (tmp_path / "file").write_text("not a database, but long enough to look like one " * 40)
    for place in ("file/state.db", ".", "file"):
        with pytest.raises(StateUnavailable, match="does not answer"):
            open_state(f"sqlite:///{tmp_path}/{place}")


@pytest.mark.parametrize("url", ["nonsense", "frobnicate://host/x", ""])
def test_an_address_that_is_none_is_a_mistake_in_the_settings(url: str) -> None:
    """It will not become right by waiting."""
    with pytest.raises(SettingsError) as raised:
        open_state(url)
    assert raised.value.key == "state.url"


def test_a_password_is_never_told() -> None:
    """Neither when the driver is missing nor when nobody answers."""
    with pytest.raises((SettingsError, StateUnavailable)) as raised:
        open_state("postgresql+psycopg://ada:not-to-be-seen@127.0.0.1:1/state")
    assert "not-to-be-seen" not in str(raised.value)
