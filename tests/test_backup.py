"""Backups: whole or not there, of one moment, verified, and back again into an empty home."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import backup_kit as kit
import project_kit
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from journal_kit import NOON, at, tensor_rows
from object_store_kit import BUCKET, environ_of, object_store

from homeostat.errors import (
    Conflict,
    IntegrityError,
    JournalUnavailable,
    NotReady,
    SettingsError,
)
from homeostat.journal.delta import table_copy
from homeostat.journal.delta.storage import filesystem
from homeostat.journal.delta.tables import open_table, tables_of
from homeostat.journal.reader import Journal
from homeostat.records import Rollout, from_json
from homeostat.registry.cache import entry_path, verify
from homeostat.settings import Settings
from homeostat.state import checks, controls, events, rollouts
from homeostat.state.store import open_state
from loop import upkeep_lease
from loop.backup import manifest
from loop.backup.creating import Created, Wanted, create
from loop.backup.restoring import Restored, restore
from loop.backup.sources import open_source


def back_up(settings: Settings, place: Path, wanted: Wanted | None = None) -> Created:
    return create(settings, place, wanted or Wanted(), now=at(0), progress=lambda *_: None)


def bring_back(settings: Settings, place: Path, *, force: bool = False) -> Restored:
    with open_source(place) as source:
        return restore(settings, source, force=force, now=at(9), progress=lambda *_: None)


def names(prefix: str, count: int = 5) -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


def stored(settings: Settings, table: str = "predictions") -> list[str]:
    """Ids in a table, each as often as it was stored."""
    url = f"{settings.journal_path}/{kit.MODEL}/{table}"
    found = DeltaTable(url).to_pyarrow_dataset(filesystem=filesystem(url)).to_table()
    return sorted(found["prediction_id"].to_pylist())


@pytest.mark.parametrize("place", ["backups", "all.tar"])
def test_what_was_backed_up_comes_back(tmp_path: Path, place: str) -> None:
    """Log, state, the version that serves, references, training sets, reports, keys: elsewhere."""
    old = kit.full_project(tmp_path / "old")
    kit.log_rows(old, names("row"))
    Journal(old.journal_path, kit.MODEL, old.model.task).quarantine(
        ["row-4"], "broken", key="k", now=NOON
    )
    made = back_up(old, tmp_path / place)
    assert made.missing == ()
    new = kit.project(tmp_path / "new")
    done = bring_back(new, tmp_path / place)

    assert (done.champion, done.left, done.aside) == ("1", (), None)
    assert kit.logged(new) == names("row", 4)
    assert stored(new, "labels") == names("row")
    state = open_state(new.state_url)
    with state.begin() as tx:
        rollout = rollouts.current(tx, kit.MODEL)
        known = rollouts.known(tx, kit.MODEL, "1")
        reference = rollouts.references_of(tx, kit.MODEL, "1")["training"]
        assert [event.type for event in events.newest(tx, kit.MODEL)] == ["model.promoted"]
        assert checks.running(tx, kit.MODEL) == []  # its job is not there: the next one looks again
    state.close()
    assert rollout is not None
    assert known is not None
    assert (rollout.epoch, known.baseline_error, known.baseline_rows) == (3, 0.25, 1000)
    assert from_json(new.rollout_path.read_bytes(), Rollout) == rollout
    verify(entry_path(new.cache_path, kit.MODEL, "1"), rollout.champion.digest)
    for name in (reference.path, "runs/run-1/train.parquet", "reports/one/report.html"):
        assert (new.home / name).read_bytes() == (old.home / name).read_bytes()
    assert new.keys_path.stat().st_mode & 0o777 == 0o600
    assert not (new.home / "server-id").exists(), "two servers would be taken for one"


def test_a_second_backup_shares_what_did_not_change(tmp_path: Path) -> None:
    """Delta's files and a version's are links to the last backup's; each backup is whole."""
    settings = kit.full_project(tmp_path / "project")
    kit.log_rows(settings, names("one"))
    first = back_up(settings, tmp_path / "backups").place
    kit.log_rows(settings, names("two"))
    kit.add_version(settings, "2")  # nothing names it
    (settings.home / "reports/one/report.html").write_text("written anew")
    second = create(
        settings, tmp_path / "backups", Wanted(), now=at(60), progress=lambda *_: None
    ).place
    shared = [
        path.relative_to(second)
        for path in second.rglob("*")
        if path.is_file() and path.stat().st_nlink > 1
    ]
    kinds = {path.parts[0] if path.suffix == ".parquet" else path.suffix for path in shared}
    assert {"journal", "home", ".json", ".bin"} <= kinds
    assert not [path for path in second.rglob("*") if "cache/digits/2" in str(path)]
    for number, (place, expected) in enumerate(
        [(first, names("one")), (second, names("one") + names("two"))]
    ):
        new = kit.project(tmp_path / f"new-{number}")
        bring_back(new, place)
        assert kit.logged(new) == expected
    newest = kit.project(tmp_path / "newest")
    bring_back(newest, tmp_path / "backups")
    assert (newest.home / "reports/one/report.html").read_text() == "written anew"


def test_rows_acknowledged_before_are_in_it_while_a_server_writes(tmp_path: Path) -> None:
    """The backup waits for what the server's spool holds, and for no more."""
    old = kit.full_project(tmp_path / "old")
    writer = kit.writer_of(old)
    acknowledged: list[str] = []
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            batch = names(f"row-{len(acknowledged):05d}", 3)
            writer.append(tensor_rows(batch))
            acknowledged.extend(batch)
            if len(acknowledged) % 300 == 0:
                writer.flush()

    thread = threading.Thread(target=serve)
    thread.start()
    project_kit.until("some rows", lambda: len(acknowledged) > 600)
    before = list(acknowledged)
    back_up(old, tmp_path / "backups")
    stop.set()
    thread.join()
    writer.close()
    new = kit.project(tmp_path / "new")
    bring_back(new, tmp_path / "backups")
    rows = stored(new)
    assert set(before) <= set(rows)
    assert len(rows) == len(set(rows))


def test_what_a_dead_server_left_is_stored_once(tmp_path: Path) -> None:
    """Rows in a spool that nobody commits are taken along, under the numbers they had."""
    old = kit.full_project(tmp_path / "old")
    kit.log_rows(old, names("stored"))
    left = subprocess.run(
        [sys.executable, "-c", LEAVE_ROWS, str(old.home), old.journal_path],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )
    assert left.returncode == -signal.SIGKILL
    back_up(old, tmp_path / "backups")
    new = kit.project(tmp_path / "new")
    assert bring_back(new, tmp_path / "backups").rows == 5
    assert stored(new) == names("left") + names("stored")
    assert not any((new.home / "spool").rglob("*.arrows"))
    kit.writer_of(old).close()  # the old server starts again, and stores its own
    assert stored(old) == names("left") + names("stored")


LEAVE_ROWS = """
import os, sys
from pathlib import Path
from journal_kit import SteppingClock, at, open_writer, tensor_rows
writer = open_writer(Path(sys.argv[1]), url=sys.argv[2], clock=SteppingClock(at(60)))
writer.append(tensor_rows([f"left-{number}" for number in range(5)]))
os.kill(os.getpid(), 9)
"""


def test_killed_in_the_middle_there_is_no_backup(tmp_path: Path) -> None:
    """What is there cannot be taken for one; the next backup clears it away."""
    settings = kit.full_project(tmp_path / "project")
    writer = kit.writer_of(settings)  # its rows stay in the spool: the backup waits for them
    writer.append(tensor_rows(names("row")))
    place = tmp_path / "backups"
    command = [sys.executable, "-P", "-m", "loop", "--project", str(settings.project)]
    running = subprocess.Popen(
        [*command, "backup", "create", str(place)], env=dict(project_kit.environ())
    )
    project_kit.until("its beginning", lambda: list(place.glob(".partial-*")))
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    new = kit.project(tmp_path / "new")
    with pytest.raises(NotReady, match="no whole backup"):
        bring_back(new, place)
    assert not new.home.exists()
    writer.close()
    back_up(settings, place)
    assert not list(place.glob(".partial-*"))
    bring_back(new, place)
    assert kit.logged(new) == names("row")


@pytest.mark.parametrize("place", ["backups", "all.tar"])
def test_a_harmed_backup_is_refused(tmp_path: Path, place: str) -> None:
    """One byte anywhere: nothing is restored."""
    settings = kit.full_project(tmp_path / "project")
    kit.log_rows(settings, names("row"))
    made = back_up(settings, tmp_path / place).place
    harmed = made if made.is_file() else next(made.glob("home/cache/**/weights.bin"))
    data = bytearray(harmed.read_bytes())
    position = data.find(b"1" * 1000)
    data[position + 5] = ord("2")
    harmed.write_bytes(data)
    new = kit.project(tmp_path / "new")
    with pytest.raises(IntegrityError, match=r"weights\.bin is not what was backed up"):
        bring_back(new, tmp_path / place)
    assert not new.home.exists()


def crafted(settings: Settings, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A backup whose digests are right, and whose manifest somebody has changed."""
    kit.log_rows(settings, names("row"))
    made = back_up(settings, folder).place
    found = json.loads((made / manifest.NAME).read_bytes())
    change(found)
    (made / manifest.NAME).write_text(json.dumps(found))
    return made


@pytest.mark.parametrize(
    "name", ["home/{}", "home//{}", "home/../{}", "/{}", "home/./x", "home/x/", ".", "", "\0"]
)
def test_a_backup_names_no_file_elsewhere(tmp_path: Path, name: str) -> None:
    """Whoever could write to the backup's place may not write anywhere else."""
    target = tmp_path / "taken-over"
    path = name.format(target)

    def add(found: dict[str, Any]) -> None:
        found["files"][path] = next(iter(found["files"].values()))

    made = crafted(kit.full_project(tmp_path / "old"), tmp_path / "backups", add)
    new = kit.project(tmp_path / "new")
    with pytest.raises(IntegrityError, match="names the file"):
        bring_back(new, made)
    assert not target.exists()
    assert not new.home.exists()


@pytest.mark.parametrize("path", ["../../../../taken-over", "/taken-over", "part-unknown.parquet"])
def test_a_table_of_a_backup_has_only_files_with_digests(tmp_path: Path, path: str) -> None:
    """Below its own folder, and verified as all others."""

    def add(found: dict[str, Any]) -> None:
        found["tables"]["predictions"]["files"].append(path)

    made = crafted(kit.full_project(tmp_path / "old"), tmp_path / "backups", add)
    new = kit.project(tmp_path / "new")
    with pytest.raises(IntegrityError, match="names the file"):
        bring_back(new, made)
    assert not new.home.exists()


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    """As is everything that a backup cannot hold."""

    def add(found: dict[str, Any]) -> None:
        found["tables"]["users"] = {"id": "x", "version": 0, "files": []}

    made = crafted(kit.full_project(tmp_path / "old"), tmp_path / "backups", add)
    with pytest.raises(IntegrityError, match='the table "users"'):
        bring_back(kit.project(tmp_path / "new"), made)


def test_no_file_comes_back_as_a_program_of_somebody_else(tmp_path: Path) -> None:
    """The rights of users, groups and others come back, and nothing beyond."""
    name = "home/reports/one/report.html"

    def add(found: dict[str, Any]) -> None:
        found["files"][name]["mode"] = 0o6755

    made = crafted(kit.full_project(tmp_path / "old"), tmp_path / "backups", add)
    new = kit.project(tmp_path / "new")
    bring_back(new, made)
    assert (new.home / "reports/one/report.html").stat().st_mode & 0o7777 == 0o755


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A home with something in it is put aside, and only on request; another model's is refused."""
    settings = kit.full_project(tmp_path / "project")
    kit.log_rows(settings, names("old"))
    back_up(settings, tmp_path / "backups")
    kit.log_rows(settings, names("new"))
    with pytest.raises(Conflict, match="is not empty; --force"):
        bring_back(settings, tmp_path / "backups")
    done = bring_back(settings, tmp_path / "backups", force=True)
    assert kit.logged(settings) == names("old")
    assert done.aside is not None
    aside = Journal(str(done.aside / "journal"), kit.MODEL, settings.model.task)
    assert aside.newest_time() == NOON
    assert (done.aside / "server-id").exists()
    other = kit.project(tmp_path / "other", model="letters")
    with pytest.raises(SettingsError, match='backup is of the classification model "digits"'):
        bring_back(other, tmp_path / "backups")


def test_a_running_project_is_left_alone(tmp_path: Path) -> None:
    """A server that holds its spool, `up` that holds its lock."""
    settings = kit.full_project(tmp_path / "project")
    back_up(settings, tmp_path / "backups")
    writer = kit.writer_of(settings)
    with pytest.raises(Conflict, match="server of this project runs"):
        bring_back(settings, tmp_path / "backups", force=True)
    writer.close()
    bring_back(settings, tmp_path / "backups", force=True)


def test_one_model_of_a_shared_state_database(tmp_path: Path) -> None:
    """A backup takes its own model's rows; a restore leaves the other's as they are."""
    shared = f'[state]\nurl = "sqlite:///{tmp_path}/shared.db"\n'
    settings = kit.full_project(tmp_path / "project", shared)
    state = open_state(settings.state_url)
    with state.begin() as tx:
        theirs = events.record(tx, "model.promoted", "letters", NOON)
    back_up(settings, tmp_path / "backups")
    new = kit.project(tmp_path / "new", shared)
    with pytest.raises(Conflict, match='holds something of "digits" already'):
        bring_back(new, tmp_path / "backups")
    with state.begin() as tx:
        events.record(tx, "loop.paused", kit.MODEL, NOON + timedelta(hours=1))
    bring_back(new, tmp_path / "backups", force=True)
    with state.begin() as tx:
        assert [each.type for each in events.newest(tx, kit.MODEL)] == ["model.promoted"]
        assert events.newest(tx, "letters") == [theirs]
    state.close()
    (kept,) = new.project.glob("*.replaced-state-*.jsonl")
    assert "loop.paused" in kept.read_text()
    bring_back(new, tmp_path / "backups", force=True)
    assert "loop.paused" in kept.read_text(), "the only copy of it: nothing writes there again"
    assert len(list(new.project.glob("*.replaced-state-*.jsonl"))) == 2


def test_a_log_in_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied out of it and into it; where the tables are still there, they are left as they are."""
    with object_store() as store:
        for name, value in environ_of(store.port).items():
            monkeypatch.setenv(name, value)
        lies = '[journal]\npath = "s3://{}/{}"\n'
        old = kit.full_project(tmp_path / "old", lies.format(BUCKET, "old"))
        kit.log_rows(old, names("one"))
        back_up(old, tmp_path / "all.tar")
        kit.log_rows(old, names("two"))

        elsewhere = kit.project(tmp_path / "new", lies.format(BUCKET, "new"))
        bring_back(elsewhere, tmp_path / "all.tar")
        assert kit.logged(elsewhere) == names("one")

        again = kit.project(tmp_path / "again", lies.format(BUCKET, "old"))
        assert set(bring_back(again, tmp_path / "all.tar").left) == {"predictions", "labels"}
        assert kit.logged(again) == names("one") + names("two")

        folder = kit.project(tmp_path / "folder")
        bring_back(folder, tmp_path / "all.tar")
        assert kit.logged(folder) == names("one")
        taken = kit.project(tmp_path / "taken", lies.format(BUCKET, "taken"))
        kit.log_rows(taken, names("other"))
        with pytest.raises(Conflict, match="holds another table than the backup"):
            bring_back(taken, tmp_path / "all.tar", force=True)


def test_a_table_whose_log_was_summed_up(tmp_path: Path) -> None:
    """A checkpoint and the entries after it are enough, and writers' versions are among them."""
    old = kit.full_project(tmp_path / "old")
    for number in range(4):
        kit.log_rows(old, names(f"day-{number}", 2))
    url = f"{old.journal_path}/{kit.MODEL}/predictions"
    DeltaTable(url).create_checkpoint()
    for entry in sorted(Path(url, "_delta_log").glob("*.json"))[:3]:
        entry.unlink()  # as the log's own retention does
    kit.log_rows(old, names("last", 2))
    back_up(old, tmp_path / "backups")
    new = kit.project(tmp_path / "new")
    bring_back(new, tmp_path / "backups")
    assert stored(new) == stored(old)
    copy = DeltaTable(f"{new.journal_path}/{kit.MODEL}/predictions")
    assert copy.transaction_version("server-1") == DeltaTable(url).transaction_version("server-1")


def cut_off_copy(settings: Settings, made: Path, kept: int) -> Path:
    """A restore killed after so many files of the log's predictions; its table's folder."""
    table = tables_of(settings.journal_path, kit.MODEL, settings.model.task)["predictions"]
    with open_source(made) as source:
        wanted = source.manifest.tables["predictions"]
        ordered = table_copy.as_written(wanted.files)
        data = [path for path in ordered if not path.startswith(table_copy.LOG)]
        for path in ordered[: len(data) + kept]:
            place = manifest.place_of("predictions", wanted.id, path)
            table_copy.write(table, path, source.pieces(place))
    assert table.local is not None
    return table.local


def test_a_restored_table_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """Cut off anywhere, nothing of it is to be seen, and the same restore does the rest."""
    old = kit.full_project(tmp_path / "old")
    for number in range(3):
        kit.log_rows(old, names(f"day-{number}"), labels=False)
    made = back_up(old, tmp_path / "backups").place
    elsewhere = f'[journal]\npath = "{tmp_path}/elsewhere-{{}}"\n'
    for kept in range(3):
        new = kit.project(tmp_path / f"new-{kept}", elsewhere.format(kept))
        cut_off_copy(new, made, kept)
        with pytest.raises((JournalUnavailable, TableNotFoundError)):
            stored_or_unavailable(new)
        bring_back(new, made)
        assert stored(new) == stored(old)


def stored_or_unavailable(settings: Settings) -> None:
    table = tables_of(settings.journal_path, kit.MODEL, settings.model.task)["predictions"]
    if open_table(table) is None:
        raise TableNotFoundError


def test_a_log_of_another_table_is_not_written_over(tmp_path: Path) -> None:
    """Neither an entry that the backup does not have, nor an older copy that is served from."""
    old = kit.full_project(tmp_path / "old")
    kit.log_rows(old, names("one"), labels=False)
    earlier = back_up(old, tmp_path / "earlier").place
    kit.log_rows(old, names("two"), labels=False)
    made = back_up(old, tmp_path / "backups").place
    new = kit.project(tmp_path / "new", f'[journal]\npath = "{tmp_path}/elsewhere"\n')
    entry = cut_off_copy(new, made, 1) / "_delta_log" / f"{2:020d}.json"
    (entry,) = entry.parent.glob("*.json")
    entry.write_bytes(entry.read_bytes() + b"\n")
    with pytest.raises(Conflict, match="holds part of a table"):
        bring_back(new, made)
    assert entry.read_bytes().endswith(b"\n")
    shutil.rmtree(tmp_path / "elsewhere")
    bring_back(new, earlier)
    shutil.rmtree(new.home)
    with pytest.raises(Conflict, match="is older than the backup"):
        bring_back(new, made)


def test_nothing_is_forgotten_while_a_backup_is_made(tmp_path: Path) -> None:
    """It is the log's only keeper meanwhile, and none afterwards."""
    settings = kit.full_project(tmp_path / "project")
    kit.log_rows(settings, names("row"))
    state, held = open_state(settings.state_url), []

    def look(*_: object) -> None:
        with state.begin() as tx:
            lease = controls.lease(tx, f"upkeep:{kit.MODEL}")
        held.append(lease is not None)

    create(settings, tmp_path / "backups", Wanted(), now=at(0), progress=look)
    assert held
    assert all(held)
    assert upkeep_lease.take(state, kit.MODEL, at(0))
    state.close()
