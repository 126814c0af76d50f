"""A request to be forgotten, while a server of the project has rows on their way."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import backup_kit as kit
from journal_kit import label, open_writer, tensor_rows
from test_journal_forget import told_of

from homeostat.journal.forgetting import waiting_rows
from homeostat.journal.forgetting.forget import Waiting, Wanted
from homeostat.settings import Settings
from homeostat.state.store import open_state
from loop import forgetting

KEY = "person-4711"
AT_ONCE = Waiting(unfinished=timedelta(0))


def forget_key(settings: Settings, at_progress: object = None) -> forgetting.Report:
    state = open_state(settings.state_url)

    def progress(what: str, done: int, total: int) -> None:
        if callable(at_progress):
            at_progress(what)

    try:
        return forgetting.forget_rows(
            settings,
            state,
            Wanted(keys=frozenset([KEY])),
            clock=lambda: datetime.now(UTC),
            progress=progress,
            waiting=AT_ONCE,
        )
    finally:
        state.close()


def test_a_label_on_its_way_is_forgotten_with_the_row_that_a_key_leads_to(tmp_path: Path) -> None:
    """It names no key, so that it is only known by the row: it is waited for before that goes."""
    settings = kit.project(tmp_path)
    server = open_writer(settings.home, url=settings.journal_path)
    server.append(tensor_rows(["secret-row", "other-row"], keys=[KEY, "somebody"]))
    server.flush()
    server.label([label("secret-row", "7"), label("other-row", "7")])
    rounds = threading.Timer(1.5, server.flush)  # as a server that asks for keys: in its own time
    rounds.start()
    report = forget_key(settings)
    rounds.join()
    server.close()
    assert {name: each.rows for name, each in report.tables.items()} == {
        "predictions": 1,
        "labels": 1,
        "quarantine": 0,
    }
    assert report.remains == ()
    assert told_of(settings.home, "secret-row") == []
    assert told_of(settings.home, KEY) == []


def test_a_key_that_is_in_use_leaves_no_label_without_its_row(tmp_path: Path) -> None:
    """A row that came after the search stays with its label, by which the next time finds both; it
    is told."""
    settings = kit.project(tmp_path)
    server = open_writer(settings.home, url=settings.journal_path)
    server.append(tensor_rows(["first-row", "other-row"], keys=[KEY, "somebody"]))
    server.label([label("first-row", "1"), label("other-row", "1")])
    server.flush()
    came: list[str] = []

    def meanwhile(what: str) -> None:
        """What is to go from the predictions was found before the labels are looked through."""
        if what == "looking through labels" and not came:
            came.append(what)
            server.append(tensor_rows(["late-row"], keys=[KEY]))
            server.label([label("late-row", "2")])
            server.flush()

    report = forget_key(settings, meanwhile)
    assert report.tables["predictions"].rows == 1
    told = "\n".join(report.remains)
    assert "The table predictions holds 1 such rows that came meanwhile" in told
    assert told_of(settings.home, "first-row") == []
    again = forget_key(settings)
    assert (again.tables["predictions"].rows, again.tables["labels"].rows) == (1, 1)
    assert again.remains == ()
    assert told_of(settings.home, "late-row") == []
    assert told_of(settings.home, KEY) == []
    assert told_of(settings.home, "other-row")
    server.close()


def test_what_came_while_rows_were_forgotten_is_told(tmp_path: Path) -> None:
    """A label of such a row in a spool, or in a table: nobody is told that all is gone."""
    settings = kit.project(tmp_path)
    server = open_writer(settings.home, url=settings.journal_path)
    server.append(tensor_rows(["secret-row"], keys=[KEY]))
    server.flush()
    server.label([label("secret-row", "1")])
    server.flush()
    came: list[str] = []

    def meanwhile(what: str) -> None:
        """Labels are erased before predictions are looked through for the deletion."""
        if what == "deleting from predictions" and not came:
            came.append(what)
            server.label([label("secret-row", "2")])
            server.flush()
            server.label([label("secret-row", "3")])

    report = forget_key(settings, meanwhile)
    assert came
    told = "\n".join(report.remains)
    assert "The table labels holds 1 such rows that came meanwhile" in told
    assert ".arrows holds such rows that came meanwhile" in told
    wanted = Wanted(ids=frozenset(["secret-row"]))
    assert waiting_rows.holding(settings.spool_path, kit.MODEL, wanted)
    server.close()
