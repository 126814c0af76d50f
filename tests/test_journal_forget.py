"""What is forgotten is gone: from the tables, from replaced files, from the log, from the disk."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from journal_kit import (
    EVER,
    NOON,
    PIXELS,
    at,
    ids_of,
    label,
    open_journal,
    open_writer,
    stored,
    tensor_rows,
)

from homeostat.errors import JournalUnavailable
from homeostat.journal.delta.tables import tables_of
from homeostat.journal.forgetting import forget, waiting_rows
from homeostat.journal.forgetting.forget import Erased, Waiting, Wanted
from homeostat.journal.keeping import compaction
from homeostat.journal.keeping.deletion import delete
from homeostat.journal.left_spools import commit_left
from homeostat.records import Task

TASK = Task.CLASSIFICATION
AT_ONCE = Waiting(unfinished=timedelta(0))
SECRET, OTHER = "person-4711", "person-0815"


def told_of(folder: Path, text: str) -> list[Path]:
    """Files under the folder that hold a text; of Parquet files, any value of any row."""
    return [path for path in folder.rglob("*") if path.is_file() and _tells(path, text)]


def _tells(path: Path, text: str) -> bool:
    if text.encode() in path.read_bytes():
        return True
    return path.suffix == ".parquet" and text in str(pq.read_table(path).to_pylist())


def refs(folder: Path) -> dict[str, Any]:
    return tables_of(str(folder / "journal"), "digits", TASK)


def erase(folder: Path, *, ids: Sequence[str] = (), keys: Sequence[str] = ()) -> dict[str, Erased]:
    wanted = Wanted(ids=frozenset(ids), keys=frozenset(keys))
    found = forget.find(refs(folder)["predictions"], wanted)
    return forget.erase(refs(folder), wanted, found, waiting=AT_ONCE)


def fill(folder: Path) -> None:
    """Rows of two people on two days, with labels, in small files and in one that replaced some."""
    writer = open_writer(folder)
    for day in (0, 1):
        for number in range(9):
            ids = [f"secret-{day}-{number}", f"other-{day}-{number}"]
            time = at(-86_400 * day + number)
            writer.append(tensor_rows(ids, time, keys=[SECRET, OTHER]))
            writer.label([label(each, "7", time) for each in ids])
            writer.flush()
    writer.close()
    journal = open_journal(folder)
    journal.quarantine(["secret-0-1", "other-0-1"], "bug", key="check", now=NOON)
    compaction.compact(refs(folder)["predictions"], now=NOON)
    compaction.compact(refs(folder)["labels"], now=NOON)


def test_a_key_is_forgotten_with_all_its_rows(tmp_path: Path) -> None:
    """Predictions, labels and what was put aside; no file still holds it, nor a log; the rows of
    others stay, and the same call again finds nothing."""
    fill(tmp_path)
    assert told_of(tmp_path, SECRET)
    assert told_of(tmp_path, "secret-")
    done = erase(tmp_path, keys=[SECRET])
    assert {name: each.rows for name, each in done.items()} == {
        "predictions": 18,
        "labels": 18,
        "quarantine": 1,
    }
    assert told_of(tmp_path, SECRET) == []
    assert told_of(tmp_path, "secret-") == []
    kept = {f"other-{day}-{number}" for day in (0, 1) for number in range(9)}
    window = open_journal(tmp_path).window(*EVER, PIXELS, quarantined=True)
    assert set(ids_of(window)) == kept
    assert window["_label"].null_count == 0
    assert stored(tmp_path, "quarantine") == {"other-0-1": 1}
    again = erase(tmp_path, keys=[SECRET])
    assert [each.rows + each.files for each in again.values()] == [0, 0, 0]


@pytest.mark.parametrize("name", ["it's", 'a "b"', "back\\slash", "ünï", "%_;--"])
def test_a_row_is_forgotten_by_its_id(tmp_path: Path, name: str) -> None:
    """Whatever characters the caller's own ids have; the others of its file stay."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a", name, "b"]))
    writer.label([label(name, "7"), label("a", "7")])
    writer.close()
    erase(tmp_path, ids=[name])
    assert stored(tmp_path) == {"a": 1, "b": 1}
    assert stored(tmp_path, "labels") == {"a": 1}
    assert told_of(tmp_path / "journal", name) == []


def test_a_forgetting_that_was_cut_off_is_finished_by_the_next(tmp_path: Path) -> None:
    """The rows are deleted already and lie in replaced files only: these go all the same."""
    fill(tmp_path)
    predictions = refs(tmp_path)["predictions"]
    delete(predictions, f"key = '{SECRET}'")
    assert told_of(tmp_path, SECRET)
    done = erase(tmp_path, keys=[SECRET])
    assert done["predictions"].rows == 0
    assert done["labels"].rows == 18
    assert told_of(tmp_path, SECRET) == []
    assert told_of(tmp_path, "secret-") == []


def test_writers_and_readers_go_on_while_rows_are_forgotten(tmp_path: Path) -> None:
    """Nothing that is written meanwhile is lost or doubled, no row of others disappears."""
    fill(tmp_path)
    stop, troubles = threading.Event(), []
    before = {each for each in stored(tmp_path) if each.startswith("other")}

    def read() -> None:
        try:
            while not stop.is_set():
                ids = ids_of(open_journal(tmp_path).window(*EVER, PIXELS, quarantined=True))
                assert before <= set(ids)
                assert len(ids) == len(set(ids))
        except BaseException as trouble:  # noqa: BLE001 - shown by the assertion
            troubles.append(trouble)

    reader = threading.Thread(target=read)
    reader.start()
    writer = open_writer(tmp_path, writer_id="busy", commit_every=timedelta(seconds=0.02))
    new: list[str] = []
    forgetting = threading.Thread(target=erase, args=[tmp_path], kwargs={"keys": [SECRET]})
    forgetting.start()
    while forgetting.is_alive():
        new.append(f"new-{len(new)}")
        writer.append(tensor_rows(new[-1:], at(60 + len(new))))
        writer.flush()
    stop.set()
    reader.join()
    writer.close()
    assert troubles == []
    assert stored(tmp_path) == dict.fromkeys([*before, *new], 1)


def test_a_file_that_may_still_be_committed_is_waited_for(tmp_path: Path) -> None:
    """A file of no commit goes once it is too old to belong to one that is under way."""
    fill(tmp_path)
    folder = tmp_path / "journal/digits/predictions"
    (whole, *_) = sorted(folder.rglob("*.parquet"), key=lambda file: -file.stat().st_size)
    orphan = whole.with_name("part-orphan.parquet")
    orphan.write_bytes(whole.read_bytes())
    torn = whole.with_name("part-torn.parquet")
    torn.write_bytes(whole.read_bytes()[:-100])
    looks: list[datetime] = []

    def clock() -> datetime:
        """Later and later; at the first looks the files are young."""
        looks.append(datetime.now(UTC) + timedelta(minutes=3) * len(looks))
        return looks[-1]

    wanted = Wanted(keys=frozenset([SECRET]))
    found = forget.find(refs(tmp_path)["predictions"], wanted)
    waiting = Waiting(unfinished=timedelta(minutes=10), clock=clock)
    forget.erase(refs(tmp_path), wanted, found, waiting=waiting)
    assert not orphan.exists()
    assert not torn.exists()
    assert len(looks) > 3


def test_what_a_dead_writer_left_is_committed_and_what_was_rejected_is_stripped(
    tmp_path: Path,
) -> None:
    """A living writer's spool is its own; it is named, and looked into."""
    dead = open_writer(tmp_path, writer_id="dead")
    dead.append(tensor_rows(["secret-1", "other-1"], keys=[SECRET, OTHER]))
    dead.label([label("secret-1", "7")])
    folder = tmp_path / "spool/digits/dead"
    left = {path.name: path.read_bytes() for path in folder.glob("*.arrows")}
    dead.close()
    (folder / "rejected").mkdir()
    for name, data in left.items():
        (folder / "rejected" / name).write_bytes(data)
    left_over = tmp_path / "spool/digits/gone"
    left_over.mkdir()
    for name, data in left.items():
        (left_over / name).write_bytes(data.replace(b"secret-1", b"secret-2"))
    living = open_writer(tmp_path, writer_id="living")
    living.append(tensor_rows(["first"]))
    living.flush()  # the next round comes in an hour
    living.append(tensor_rows(["secret-3"], keys=[SECRET]))
    url, spool = str(tmp_path / "journal"), tmp_path / "spool"
    assert commit_left(url, spool, "digits", TASK) == ("living",)
    assert stored(tmp_path) == {"secret-1": 1, "secret-2": 1, "other-1": 2, "first": 1}
    wanted = Wanted(keys=frozenset([SECRET]))
    assert [path.parent.name for path in waiting_rows.holding(spool, "digits", wanted)] == [
        "living"
    ]
    living.flush()
    assert waiting_rows.holding(spool, "digits", wanted) == ()
    living.close()
    by_id = Wanted(ids=frozenset(["secret-1"]), keys=frozenset([SECRET]))
    assert waiting_rows.strip_rejected(spool, "digits", by_id) == 2
    assert told_of(spool, "secret-1") == []
    assert told_of(spool, OTHER)


def test_a_spool_is_let_go_of_while_the_storage_is_away(tmp_path: Path) -> None:
    """The rows stay where they are, and the server that starts next takes them over."""
    writer = open_writer(tmp_path, writer_id="dead")
    writer.append(tensor_rows(["row"]))
    spool, away = tmp_path / "spool", tmp_path / "journal/digits"
    kept = tmp_path / "kept"
    shutil.copytree(spool / "digits/dead", kept)
    writer.close()
    shutil.rmtree(tmp_path / "journal")
    shutil.copytree(kept, spool / "digits/dead", dirs_exist_ok=True)
    away.parent.mkdir()
    away.write_text("a file where the tables' folder should be")
    tried = timedelta(seconds=0.5)
    with pytest.raises(JournalUnavailable, match=r"were not stored within 0\.5 s"):
        commit_left(str(tmp_path / "journal"), spool, "digits", TASK, within=tried)
    away.unlink()
    again = open_writer(tmp_path, writer_id="dead")
    again.flush()
    again.close()
    assert stored(tmp_path) == {"row": 1}
