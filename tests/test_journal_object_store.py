"""The journal in an object store: the same code, against an S3 server in a process of its own."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from journal_kit import (
    EVER,
    PIXELS,
    at,
    flushed,
    ids_of,
    label,
    open_writer,
    tensor_rows,
    until,
)
from object_store_kit import BUCKET, ObjectStore, environ_of, free_port, object_store

from homeostat.errors import JournalUnavailable, SettingsError
from homeostat.journal.delta import storage
from homeostat.journal.delta.tables import tables_of
from homeostat.journal.forgetting import forget
from homeostat.journal.keeping.stats import stats
from homeostat.journal.keeping.upkeep import Keeping, upkeep
from homeostat.journal.reader import Journal
from homeostat.journal.writer import JournalWriter
from homeostat.records import Task

TASK = Task.CLASSIFICATION


@pytest.fixture(scope="module")
def running() -> Iterator[ObjectStore]:
    with object_store() as store:
        yield store


@pytest.fixture
def store(running: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    use(running.port, monkeypatch)
    yield running
    running.behave("fine")


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """A folder of the test's own."""
    return f"s3://{BUCKET}/{re.sub(r'[^a-z_0-9]+', '-', request.node.name)}"


def use(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environ_of(port).items():
        monkeypatch.setenv(name, value)


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(storage.PATIENCE, "timeout", "1s")
    monkeypatch.setitem(storage.PATIENCE, "retry_timeout", "1s")


def writer_of(folder: Path, url: str, **changes: Any) -> JournalWriter:
    return open_writer(folder, url=url, **changes)


def journal_of(url: str) -> Journal:
    return Journal(url, "digits", TASK)


def stored_ids(url: str, table: str) -> list[str]:
    """As they lie in the table: the journal's readers would drop what is there twice."""
    place = f"{url}/digits/{table}"
    dataset = DeltaTable(place).to_pyarrow_dataset(filesystem=storage.filesystem(place))
    found: list[str] = dataset.to_table(["prediction_id"])["prediction_id"].to_pylist()
    return sorted(found)


def names(count: int, prefix: str = "row") -> list[str]:
    return [f"{prefix}-{at:04d}" for at in range(count)]


def test_everything_of_the_journal_works_in_an_object_store(
    store: ObjectStore, tmp_path: Path, url: str
) -> None:
    """Rows, labels, corrections, imports, quarantine and its release read back as written."""
    writer, journal = writer_of(tmp_path, url), journal_of(url)
    assert journal.newest_time() is None
    assert journal.window(*EVER, PIXELS).num_rows == 0
    writer.append(tensor_rows(names(3)))
    writer.append(tensor_rows(["next-day"], at(86_400), version="2"))
    writer.label([label("row-0000", "3"), label("row-0001", "4"), label("unknown", "5")])
    writer.close()
    journal.add_labels([label("row-0000", "8", at(60))], writer_id="tests")
    assert journal.quarantine(["row-0002"], "broken", key="k", now=at(70)) == 1

    found = journal.window(*EVER, PIXELS, embedding=True)
    assert ids_of(found) == ["row-0000", "row-0001", "next-day"]
    assert found["_label"].to_pylist() == ["8", "4", None]
    assert found["p1"].to_pylist() == [1.5, 1.5, 1.5]
    assert found["_embedding"][0].as_py() == [0.0, 1.0, 2.0, 3.0]
    assert journal.newest_time() == at(86_400)
    assert journal.pending_labels() == 1
    assert journal.release("k", now=at(80)) == 1
    assert journal.window(at(0), at(1), PIXELS).num_rows == 3


def test_upkeep_works_in_an_object_store(store: ObjectStore, tmp_path: Path, url: str) -> None:
    """Small files are put together, replaced ones swept, old days deleted, a person forgotten;
    and a reader whose file was swept reads on."""
    writer, journal = writer_of(tmp_path, url), journal_of(url)
    for number in range(10):
        writer.append(tensor_rows([f"old-{number}"], at(-86_400 * 3 + number), keys=["ada"]))
        writer.append(
            tensor_rows([f"new-{number}", f"bob-{number}"], at(number), keys=["ada", "bob"])
        )
        writer.label([label(f"new-{number}", "3"), label(f"bob-{number}", "4")])
        writer.flush()
    reading = journal.batches(*EVER, PIXELS, rows=5)
    seen = [*next(reading).column("_prediction_id").to_pylist()]
    keeping = Keeping(keep=timedelta(days=2), keep_bytes=None, keep_deleted=timedelta(0))
    done = upkeep(url, "digits", TASK, keeping, now=at(3600))
    assert (done.expired_rows, done.rows) == (10, 20)
    assert done.files_removed > done.files_written
    for batch in reading:
        seen += batch.column("_prediction_id").to_pylist()
    assert set(seen) >= {f"new-{number}" for number in range(10)}

    tables = tables_of(url, "digits", TASK)
    wanted = forget.Wanted(keys=frozenset(["ada"]))
    found = forget.find(tables["predictions"], wanted)
    forget.erase(tables, wanted, found, waiting=forget.Waiting(unfinished=timedelta(0)))
    left = journal.window(*EVER, PIXELS)
    assert sorted(ids_of(left)) == [f"bob-{number}" for number in range(10)]
    assert left["_label"].to_pylist() == ["4"] * 10
    known = stats(url, "digits", TASK)
    assert (known.rows, known.labels) == (10, 10)
    assert [each.writer for each in known.writers] == ["server-1"]
    writer.append(tensor_rows(["later"], at(7200)))
    writer.close()
    assert journal.newest_time() == at(7200)


def test_two_writers_at_once_lose_nothing(store: ObjectStore, tmp_path: Path, url: str) -> None:
    """Commits are conditional writes: of two at once, the slower one goes on top of the faster."""
    every = 6
    store.behave("slow commits")

    def write(writer_id: str) -> None:
        writer = writer_of(tmp_path, url, writer_id=writer_id, commit_every=timedelta(hours=1))
        for round_ in range(every):
            writer.append(tensor_rows(names(5, f"{writer_id}-{round_}"), at(round_)))
            writer.flush()
        writer.close()

    writers = [threading.Thread(target=write, args=(name,)) for name in ("one", "two")]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    found = ids_of(journal_of(url).window(*EVER, PIXELS))
    expected = [
        name for who in ("one", "two") for at in range(every) for name in names(5, f"{who}-{at}")
    ]
    assert sorted(found) == sorted(expected)


def test_rows_wait_for_a_store_that_is_not_there_yet(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server starts and logs with the store away; once it is there, every row is stored."""
    port = free_port()
    use(port, monkeypatch)
    writer = writer_of(tmp_path, url, flush_within=timedelta(seconds=1))
    writer.append(tensor_rows(names(4)))
    with pytest.raises(JournalUnavailable, match="wait in the spool"):
        writer.flush()
    with pytest.raises(JournalUnavailable, match="does not answer"):
        journal_of(url).window(*EVER, PIXELS)
    until(lambda: writer.level().errors > 0)
    with object_store(port):
        flushed(writer)
        writer.close()
        assert ids_of(journal_of(url).window(*EVER, PIXELS)) == names(4)


def test_errors_of_the_store_are_tried_again(store: ObjectStore, tmp_path: Path, url: str) -> None:
    """A store that answers 500 for a while delays rows; readers are told, and nothing is lost."""
    writer = writer_of(tmp_path, url, flush_within=timedelta(seconds=1))
    writer.append(tensor_rows(names(2, "before")))
    flushed(writer)
    store.behave("500")
    writer.append(tensor_rows(names(2, "meanwhile"), at(1)))
    writer.label([label("before-0000", "3")])
    with pytest.raises(JournalUnavailable, match="wait in the spool"):
        writer.flush()
    with pytest.raises(JournalUnavailable, match="does not answer"):
        journal_of(url).window(*EVER, PIXELS)
    store.behave("fine")
    flushed(writer)
    writer.close()
    found = journal_of(url).window(*EVER, PIXELS)
    assert ids_of(found) == names(2, "before") + names(2, "meanwhile")
    assert found["_label"].to_pylist() == ["3", None, None, None]


@pytest.mark.parametrize("lost", ["", " predictions", " labels"])
def test_a_commit_whose_answer_is_lost_is_not_made_twice(
    store: ObjectStore, tmp_path: Path, url: str, lost: str
) -> None:
    """The store took the commit and said that it failed: the rows are there once, whatever was
    stored in the other table between the two tries."""
    writer = writer_of(tmp_path, url, flush_within=timedelta(seconds=1))
    writer.append(tensor_rows(names(2, "before")))
    flushed(writer)
    store.behave(f"lost answers{lost}")
    writer.append(tensor_rows(names(2, "after"), at(1)))
    writer.label([label("before-0000", "3")])
    with contextlib.suppress(JournalUnavailable):
        writer.flush()
    store.behave("fine")
    flushed(writer)
    writer.close()
    assert stored_ids(url, "predictions") == sorted(names(2, "before") + names(2, "after"))
    assert stored_ids(url, "labels") == ["before-0000"]


def test_a_store_that_hangs_is_given_up(
    store: ObjectStore, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the writer nor a reader waits for an answer that never comes; later all is there."""
    writer = writer_of(tmp_path, url, flush_within=timedelta(seconds=1))
    writer.append(tensor_rows(names(2, "before")))
    flushed(writer)
    with monkeypatch.context() as for_now, store.hanging():
        impatient(for_now)  # but not while the store is well, and slow
        writer.append(tensor_rows(names(2, "meanwhile"), at(1)))
        with pytest.raises(JournalUnavailable, match="wait in the spool"):
            writer.flush()
        with pytest.raises(JournalUnavailable, match="does not answer"):
            journal_of(url).window(*EVER, PIXELS)
    flushed(writer)
    writer.close()
    found = journal_of(url).window(*EVER, PIXELS)
    assert ids_of(found) == names(2, "before") + names(2, "meanwhile")


def test_a_store_that_hangs_while_files_are_read_is_given_up(
    store: ObjectStore, tmp_path: Path, url: str
) -> None:
    """Arrow reads the files; it gives up as delta-rs does, and not after a hundred seconds."""
    writer = writer_of(tmp_path, url)
    writer.append(tensor_rows(names(2)))
    writer.close()
    folder = storage.filesystem(f"{url}/digits/predictions")
    with store.hanging(), pytest.raises(OSError, match=r"Timeout|timed out|too slow"):
        folder.open_input_file("_delta_log/00000000000000000000.json").read()


@pytest.mark.parametrize("place", ["az://box/folder", "s3a://bucket/folder", "hdfs://host/folder"])
def test_a_place_that_readers_could_not_reach_is_refused(place: str) -> None:
    """Not when the first rows are read, but where the journal is opened."""
    with pytest.raises(SettingsError, match=r"journal\.path: .*s3://bucket/folder"):
        journal_of(place)
