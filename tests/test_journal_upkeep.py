"""The log's tables stay small and quick to read, while rows come in and are read."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from crash_kit import acknowledged, child, until_killed
from deltalake import DeltaTable
from journal_kit import (
    EVER,
    NOON,
    PIXELS,
    SteppingClock,
    column_rows,
    ids_of,
    label,
    open_journal,
    open_writer,
    stored,
    tensor_rows,
)

from homeostat.errors import Conflict, JournalUnavailable
from homeostat.journal.delta import tables
from homeostat.journal.delta.files import TableFile, files_in
from homeostat.journal.delta.row_groups import Span, disorder, spans
from homeostat.journal.delta.tables import tables_of
from homeostat.journal.keeping import compaction, retention, upkeep
from homeostat.records import Task

DAY = NOON.replace(hour=0)
LATER = NOON + timedelta(days=2)
TASK = Task.CLASSIFICATION
KEEPING = upkeep.Keeping(keep=timedelta(days=3), keep_bytes=None, keep_deleted=timedelta(hours=24))

COMPACTOR = """
import sys
from datetime import timedelta
from pathlib import Path
from journal_kit import NOON, open_writer, tensor_rows
from test_journal_upkeep import LATER, predictions
from homeostat.journal.keeping import compaction
folder = Path(sys.argv[1])
writer = open_writer(folder, writer_id=f"compactor-{sys.argv[2]}")
for count in range(10_000):
    writer.append(tensor_rows([f"turn-{sys.argv[2]}-{count}"]))
    writer.flush()
    print(f"row turn-{sys.argv[2]}-{count}", flush=True)
    compaction.compact(predictions(folder), now=LATER)
"""


def predictions(folder: Path) -> tables.TableRef:
    return tables.predictions(str(folder / "journal"), "digits", TASK)


def fill(folder: Path, moments: Sequence[datetime], *, each: int = 10) -> list[str]:
    """One commit a moment, of so many rows; their ids."""
    writer = open_writer(folder)
    ids = []
    for moment in moments:
        mine = [f"{moment:%d-%H:%M:%S}-{n}" for n in range(each)]
        writer.append(tensor_rows(mine, moment))
        writer.flush()
        ids += mine
    writer.close()
    return ids


def quarters(day: datetime = DAY, count: int = 96) -> list[datetime]:
    return [day + timedelta(minutes=15 * n) for n in range(count)]


def row_groups(folder: Path) -> list[Span]:
    table = predictions(folder)
    return spans(table, [file.path for file in files_in(table)])


def touched(folder: Path, start: datetime) -> int:
    """Row groups that a reader of one hour cannot skip."""
    first, last = start.timestamp(), (start + timedelta(hours=1)).timestamp()
    return sum(span.start < last and span.end >= first for span in row_groups(folder))


def test_a_day_of_commits_becomes_one_file_and_reads_the_same(tmp_path: Path) -> None:
    """Every row once, and an hour's read skips most row groups by their times."""
    fill(tmp_path, quarters(count=48), each=3000)
    before = open_journal(tmp_path).window(*EVER, PIXELS)
    done = compaction.compact(predictions(tmp_path), now=LATER)
    assert (done.replaced, done.written, done.merged_days) == (48, 1, ("2026-11-20",))
    after = open_journal(tmp_path).window(*EVER, PIXELS)
    assert after.sort_by("_prediction_id").equals(before.sort_by("_prediction_id"))
    assert len(row_groups(tmp_path)) >= 5
    assert max(touched(tmp_path, DAY + timedelta(hours=hour)) for hour in range(12)) <= 2


def test_a_table_of_few_files_is_left_alone(tmp_path: Path) -> None:
    """Of the day that still grows a few small files are no harm, once it is over they are one."""
    fill(tmp_path, quarters(count=5))
    table = predictions(tmp_path)
    assert compaction.compact(table, now=NOON).replaced == 0
    assert compaction.compact(table, now=DAY + timedelta(days=1, minutes=59)).replaced == 0
    assert compaction.compact(table, now=LATER).replaced == 5
    assert compaction.compact(table, now=LATER).replaced == 0


def test_a_day_out_of_order_is_sorted_once_it_is_over(tmp_path: Path) -> None:
    """A writer whose storage was away comes last; sorted, an hour is in one place again."""
    moments = quarters(count=48)
    random.Random(3).shuffle(moments)
    fill(tmp_path, moments, each=3000)
    table = predictions(tmp_path)
    before = open_journal(tmp_path).window(*EVER, PIXELS)
    assert compaction.compact(table, now=NOON).sorted_days == ()
    assert disorder(row_groups(tmp_path)) > 2
    assert compaction.compact(table, now=LATER).sorted_days == ("2026-11-20",)
    assert max(touched(tmp_path, DAY + timedelta(hours=hour)) for hour in range(12)) <= 2
    after = open_journal(tmp_path).window(*EVER, PIXELS)
    assert after.sort_by("_prediction_id").equals(before.sort_by("_prediction_id"))
    assert compaction.compact(table, now=LATER).sorted_days == ()
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    assert compaction.compact(table, now=LATER, since=long_ago).sorted_days == ()


def test_what_is_worth_doing_follows_from_the_files_alone() -> None:
    """A growing day waits for eight small files; large ones are left as they are."""

    def day(count: int, size: int, day: str = "2026-11-20") -> list[TableFile]:
        return [
            TableFile(path=str(n), day=day, bytes=size, rows=10, written_at=NOON)
            for n in range(count)
        ]

    large, small = compaction.TARGET, 1000
    assert compaction.plan(day(20, large), now=LATER) == ()
    assert compaction.plan(day(7, small), now=NOON) == ()
    assert compaction.plan(day(8, small), now=NOON) == ("2026-11-20",)
    mixed = day(1, small) + day(2, small, "2026-11-21") + day(1, large, "2026-11-21")
    assert compaction.plan(mixed, now=LATER) == ("2026-11-21",)
    assert compaction.plan(day(9, small, ""), now=LATER) == ("",)


def test_versions_with_other_columns_are_put_together(tmp_path: Path) -> None:
    """Rows from before a feature was added read as null in it, after compaction as before."""
    writer = open_writer(tmp_path)
    for n in range(9):
        columns = {"a": [float(n)]} | ({"b": ["x"]} if n > 4 else {})
        writer.append(column_rows([f"row-{n}"], columns))
        writer.flush()
    writer.close()
    before = open_journal(tmp_path).window(*EVER, ["a", "b"])
    assert compaction.compact(predictions(tmp_path), now=NOON).replaced == 9
    after = open_journal(tmp_path).window(*EVER, ["a", "b"])
    assert after.sort_by("_prediction_id").equals(before.sort_by("_prediction_id"))


def test_killed_in_the_middle_a_compaction_leaves_the_table_right(tmp_path: Path) -> None:
    """Every row once after each kill -9, and the next compaction goes on."""
    ids = set(fill(tmp_path, quarters(count=24), each=1000))
    moments = random.Random(7)
    for turn in range(5):
        ids |= acknowledged(until_killed(child(COMPACTOR, tmp_path, turn), moments.random()), "row")
        found = stored(tmp_path)
        assert ids <= found.keys()
        assert set(found.values()) == {1}
    compaction.compact(predictions(tmp_path), now=LATER)
    assert stored(tmp_path) == found
    assert len(DeltaTable(tmp_path / "journal/digits/predictions").file_uris()) == 1


def days_of(folder: Path, table: str = "predictions") -> set[str]:
    handle = DeltaTable(folder / "journal/digits" / table)
    return {part["date"] for part in handle.partitions()}


def days_back(count: int) -> datetime:
    return NOON - timedelta(days=count)


def test_old_days_go_with_their_labels_and_what_was_put_aside(tmp_path: Path) -> None:
    """Whole days older than `keep`; a label stays while its prediction does."""
    clock = SteppingClock(days_back(10))
    writer = open_writer(tmp_path, clock=clock)
    for back in range(10, -1, -1):
        clock.now = days_back(back)
        writer.append(tensor_rows([f"back-{back}"], clock.now))
        writer.label([label(f"back-{back}", "7", clock.now)])
        writer.label([label(f"back-{back + 1}", "8", clock.now)])  # a day later, as corrections do
        writer.flush()
    writer.close()
    journal = open_journal(tmp_path)
    journal.quarantine(["back-9"], "bug", key="old", now=days_back(9))
    journal.quarantine(["back-2"], "bug", key="new", now=days_back(2))
    refs, keeping = tables_of(str(tmp_path / "journal"), "digits", TASK), KEEPING
    would = upkeep.expire(refs, keeping, now=NOON, dry_run=True)
    assert len(days_of(tmp_path)) == 11
    done = upkeep.expire(refs, keeping, now=NOON)
    assert would == done
    assert (len(done.days), done.rows, done.labels) == (7, 7, 12)
    window = open_journal(tmp_path).window(*EVER, PIXELS, quarantined=True)
    assert sorted(ids_of(window)) == ["back-0", "back-1", "back-2", "back-3"]
    assert window["_label"].to_pylist() == ["8", "8", "8", "7"]
    assert stored(tmp_path, "quarantine") == {"back-2": 1}
    assert upkeep.expire(refs, keeping, now=NOON).days == ()


def test_the_oldest_days_go_where_the_tables_are_too_large(tmp_path: Path) -> None:
    """Oldest first until the rest fits; today's rows stay, however many."""
    moments = [days_back(back) for back in range(5, -1, -1)]
    fill(tmp_path, moments, each=50)
    refs = tables_of(str(tmp_path / "journal"), "digits", TASK)
    size = sum(file.bytes for file in files_in(refs["predictions"])[-2:])
    two_days = replace(KEEPING, keep=timedelta(0), keep_bytes=size)
    assert upkeep.expire(refs, two_days, now=NOON).days == tuple(
        f"{moment:%F}" for moment in moments[:4]
    )
    nothing = replace(two_days, keep_bytes=1)
    assert upkeep.expire(refs, nothing, now=NOON).days == (f"{moments[4]:%F}",)
    assert days_of(tmp_path) == {f"{NOON:%F}"}


def test_a_clock_that_runs_ahead_deletes_no_log(tmp_path: Path) -> None:
    """Where all would go, or all but what the same clock dated, a person has to say so; the rest
    of the upkeep is done all the same."""
    moments = [days_back(back) for back in range(5, -1, -1)]
    fill(tmp_path, moments)
    url, ahead = str(tmp_path / "journal"), NOON + timedelta(days=40)
    refs = tables_of(url, "digits", TASK)
    with pytest.raises(Conflict, match="vacuum --yes"):
        upkeep.upkeep(url, "digits", TASK, KEEPING, now=ahead)
    assert len(days_of(tmp_path)) == 6
    writer = open_writer(tmp_path, clock=SteppingClock(ahead))
    writer.append(tensor_rows(["ahead"], ahead))
    writer.close()
    with pytest.raises(Conflict, match="the clock may run ahead"):
        upkeep.expire(refs, KEEPING, now=ahead)
    assert len(upkeep.expire(refs, KEEPING, now=ahead, dry_run=True).days) == 6
    assert len(days_of(tmp_path)) == 7
    assert len(upkeep.expire(refs, KEEPING, now=ahead, anyway=True).days) == 6


def test_one_table_that_cannot_be_kept_holds_up_no_other(tmp_path: Path) -> None:
    """Replaced files go first, as on a disk that is nearly full; what failed is told at the end."""
    fill(tmp_path, quarters(count=12))
    refs = tables_of(str(tmp_path / "journal"), "digits", TASK)
    compaction.compact(refs["predictions"], now=NOON)
    writer = open_writer(tmp_path, writer_id="server-2")
    for number in range(12):
        writer.append(tensor_rows([f"row-{number}"]))
        writer.label([label(f"row-{number}", "7")])
        writer.flush()
    writer.close()
    broken = max(files_in(refs["predictions"]), key=lambda file: file.path).path
    file = tmp_path / "journal/digits/predictions" / broken
    file.write_bytes(b"PAR1" + bytes(file.stat().st_size - 8) + b"PAR1")
    folder = tmp_path / "journal/digits/predictions/model=digits"
    before = len(list(folder.rglob("*.parquet")))
    at_once = replace(KEEPING, keep_deleted=timedelta(0))
    with pytest.raises(JournalUnavailable, match="predictions"):
        upkeep.upkeep(str(tmp_path / "journal"), "digits", TASK, at_once, now=NOON)
    assert len(list(folder.rglob("*.parquet"))) == before - 12
    assert len(files_in(refs["labels"])) == 1


def test_replaced_files_go_after_their_time(tmp_path: Path) -> None:
    """And what a commit that was cut off left behind; a file that may still be committed stays."""
    fill(tmp_path, quarters(count=12))
    table = predictions(tmp_path)
    compaction.compact(table, now=NOON)
    folder = tmp_path / "journal/digits/predictions"
    (kept,) = folder.rglob("*.zstd.parquet")
    young, old = kept.with_name("young.parquet"), kept.with_name("old.parquet")
    for orphan in (young, old):
        shutil.copy(kept, orphan)
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    assert retention.vacuum(table, keep_deleted=timedelta(hours=24)).files == 0
    assert retention.vacuum(table, keep_deleted=timedelta(0), dry_run=True).files == 13
    swept = retention.vacuum(table, keep_deleted=timedelta(0))
    assert swept.files == 13
    assert swept.bytes > kept.stat().st_size
    assert sorted(folder.rglob("*.parquet")) == sorted([kept, young])
    assert len(open_journal(tmp_path).window(*EVER, PIXELS)) == 120


def test_upkeep_forgets_no_writer(tmp_path: Path) -> None:
    """After compaction, vacuum, a checkpoint and the end of the log's old entries a segment that
    was committed before is still known, and stored once."""
    kept = tmp_path / "kept"
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a", "b"]))
    writer.label([label("a", "7")])
    shutil.copytree(tmp_path / "spool/digits/server-1", kept)
    writer.flush()
    ids = ["a", "b"]
    for number in range(12):
        ids.append(f"row-{number}")
        writer.append(tensor_rows(ids[-1:]))
        writer.flush()
    writer.close()
    url = str(tmp_path / "journal")
    result = upkeep.upkeep(url, "digits", TASK, KEEPING, now=NOON)
    assert (result.files_replaced, result.files_written, result.files) == (13, 1, 1)
    log = tmp_path / "journal/digits/predictions/_delta_log"
    for entry in log.iterdir():
        os.utime(entry, (time.time() - 10 * 86_400,) * 2)
    upkeep.upkeep(url, "digits", TASK, KEEPING, now=NOON)
    assert len(list(log.glob("*.json"))) < 3, "old entries of the log are gone"
    for segment in kept.glob("*.arrows"):
        shutil.copy(segment, tmp_path / "spool/digits/server-1")
    open_writer(tmp_path).close()
    assert stored(tmp_path) == dict.fromkeys(ids, 1)
    assert stored(tmp_path, "labels") == {"a": 1}


def test_rows_come_in_and_are_read_while_the_tables_are_kept(tmp_path: Path) -> None:
    """Writers, a reader and an upkeep that removes replaced files at once, all at the same time."""
    url, stop = str(tmp_path / "journal"), threading.Event()
    troubles: list[BaseException] = []
    keeping = replace(KEEPING, keep_deleted=timedelta(0))
    refs = tables_of(url, "digits", TASK)

    def until_stopped(work: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                while not stop.is_set():
                    work()
            except BaseException as trouble:  # noqa: BLE001 - shown by the assertion
                troubles.append(trouble)

        return threading.Thread(target=run)

    def read() -> None:
        ids = ids_of(open_journal(tmp_path).window(*EVER, PIXELS))
        assert len(ids) == len(set(ids))

    def keep() -> None:
        compaction.compact(refs["predictions"], now=LATER)
        upkeep.upkeep(url, "digits", TASK, keeping, now=NOON)

    threads = [until_stopped(read), until_stopped(keep)]
    writers = [open_writer(tmp_path, writer_id=f"server-{n}") for n in range(2)]
    ids = []
    for thread in threads:
        thread.start()
    for number in range(60):
        for at, writer in enumerate(writers):
            ids.append(f"{at}-{number}")
            writer.append(tensor_rows(ids[-1:]))
            writer.flush()
    stop.set()
    for thread in threads:
        thread.join()
    for writer in writers:
        writer.close()
    assert troubles == []
    assert stored(tmp_path) == dict.fromkeys(ids, 1)
