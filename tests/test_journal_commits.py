"""When rows go to the tables, by how many writers, and what waits while a table is away."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from journal_kit import (
    EVER,
    PATIENCE,
    PIXELS,
    flushed,
    label,
    open_journal,
    open_writer,
    stored,
    tensor_rows,
    until,
)

from homeostat.errors import Conflict, JournalUnavailable


def test_one_writer_id_cannot_be_used_twice_at_once(tmp_path: Path) -> None:
    """The second process is told, and what can be done, and may start once the first has closed."""
    first = open_writer(tmp_path)
    with pytest.raises(
        Conflict, match=r"writes to the spool .*: a project has one .*End the other"
    ):
        open_writer(tmp_path)
    first.close()
    open_writer(tmp_path).close()


def test_many_writers_append_to_one_table(tmp_path: Path) -> None:
    """Writers that start, create and commit at the same time lose and double nothing."""
    names = [f"server-{n}" for n in range(3)]

    def write(name: str) -> None:
        writer = open_writer(tmp_path, writer_id=name, commit_every=timedelta(seconds=0.01))
        for count in range(8):
            writer.append(tensor_rows([f"{name}-{count}"]))
            writer.label([label(f"{name}-{count}", "7")])
            writer.flush()
        writer.close()

    threads = [threading.Thread(target=write, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {f"{name}-{count}": 1 for name in names for count in range(8)}
    assert stored(tmp_path) == expected
    assert stored(tmp_path, "labels") == expected


@pytest.mark.parametrize("broken", ["predictions", "labels"])
def test_table_that_takes_nothing_keeps_no_other_waiting(tmp_path: Path, broken: str) -> None:
    """Labels are stored beside a predictions table that is broken, and the other way round."""
    (tmp_path / "journal/digits").mkdir(parents=True)
    (tmp_path / "journal/digits" / broken).write_text("not a folder")
    writer = open_writer(tmp_path, flush_within=timedelta(seconds=2))
    writer.append(tensor_rows(["a"]))
    writer.label([label("a", "7")])
    until(lambda: writer.level().errors > 0)  # else a flush does not know why it takes so long
    with pytest.raises(JournalUnavailable, match=broken):
        writer.flush()
    other = {"predictions": "labels", "labels": "predictions"}[broken]
    until(lambda: not list((tmp_path / "spool").rglob(f"*-{other}.arrows")))
    assert stored(tmp_path, other) == {"a": 1}
    (tmp_path / "journal/digits" / broken).unlink()
    flushed(writer)
    writer.close()
    assert stored(tmp_path, broken) == {"a": 1}


def test_storage_away_is_not_felt_by_append(tmp_path: Path) -> None:
    """Rows wait in the spool, flush says so, and they are stored once the storage is back."""
    away = tmp_path / "journal"
    away.write_text("not a folder")
    writer = open_writer(tmp_path, flush_within=timedelta(seconds=0.3))
    writer.append(tensor_rows(["a"]))
    writer.label([label("a", "7")])
    with pytest.raises(JournalUnavailable, match="wait in the spool"):
        writer.flush()
    until(lambda: writer.level().errors > 0)
    level = writer.level()
    assert (level.received, level.stored, level.labels) == (1, 0, 1)
    assert level.spool_bytes > 0
    assert level.oldest is not None
    writer.close()
    restarted = open_writer(tmp_path, flush_within=timedelta(seconds=PATIENCE))
    away.unlink()
    restarted.flush()
    assert restarted.level().stored == 1
    assert (restarted.level().spool_bytes, restarted.level().oldest) == (0, None)
    restarted.close()
    assert open_journal(tmp_path).window(*EVER, PIXELS)["_label"].to_pylist() == ["7"]


def test_rows_are_committed_without_a_flush(tmp_path: Path) -> None:
    """After commit_every, or as soon as the spool holds commit_bytes."""
    by_time = open_writer(tmp_path / "time", commit_every=timedelta(seconds=0.05))
    by_size = open_writer(tmp_path / "size", commit_bytes=1)
    for writer in (by_time, by_size):
        writer.append(tensor_rows(["a"]))
        until(lambda writer=writer: writer.level().stored == 1)  # type: ignore[misc]
        writer.close()
