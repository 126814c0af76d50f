"""The log's tables stay small and quick to read, while rows come in and are read."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
from deltalake import DeltaTable
from journal_kit import EVER, NOON, PIXELS, column_rows, open_journal, open_writer, tensor_rows
from test_journal_crash import acknowledged, child, stored, until_killed

from homeostat.journal import compaction, tables
from homeostat.journal.files import TableFile, files_of
from homeostat.records import Task

DAY = NOON.replace(hour=0)
LATER = NOON + timedelta(days=2)

COMPACTOR = """
import sys
from datetime import timedelta
from pathlib import Path
from journal_kit import NOON, open_writer, tensor_rows
from test_journal_upkeep import LATER, predictions
from homeostat.journal import compaction
folder = Path(sys.argv[1])
writer = open_writer(folder, writer_id=f"compactor-{sys.argv[2]}")
for count in range(10_000):
    writer.append(tensor_rows([f"turn-{sys.argv[2]}-{count}"]))
    writer.flush()
    print(f"row turn-{sys.argv[2]}-{count}", flush=True)
    compaction.compact(predictions(folder), "time", now=LATER)
"""


def predictions(folder: Path) -> tables.TableRef:
    return tables.predictions(str(folder / "journal"), "digits", Task.CLASSIFICATION)


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


def row_groups(folder: Path) -> list[tuple[datetime, datetime]]:
    """From when to when the rows of each are."""
    spans = []
    for file in DeltaTable(folder / "journal/digits/predictions").file_uris():
        metadata = pq.read_metadata(file)
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            columns = {group.column(c).path_in_schema: c for c in range(group.num_columns)}
            found = group.column(columns["time"]).statistics
            spans.append((found.min, found.max))
    return spans


def touched(folder: Path, start: datetime) -> int:
    """Row groups that a reader of one hour cannot skip."""
    end = start + timedelta(hours=1)
    return sum(first < end and last >= start for first, last in row_groups(folder))


def test_a_day_of_commits_becomes_one_file_and_reads_the_same(tmp_path: Path) -> None:
    """Every row once, and an hour's read skips most row groups by their times."""
    fill(tmp_path, quarters(count=48), each=3000)
    before = open_journal(tmp_path).window(*EVER, PIXELS)
    done = compaction.compact(predictions(tmp_path), "time", now=LATER)
    assert (done.replaced, done.written, done.merged_days) == (48, 1, ("2026-11-20",))
    after = open_journal(tmp_path).window(*EVER, PIXELS)
    assert after.sort_by("_prediction_id").equals(before.sort_by("_prediction_id"))
    assert len(row_groups(tmp_path)) >= 5
    assert max(touched(tmp_path, DAY + timedelta(hours=hour)) for hour in range(12)) <= 2


def test_a_table_of_few_files_is_left_alone(tmp_path: Path) -> None:
    """Of the day that still grows a few small files are no harm, once it is over they are one."""
    fill(tmp_path, quarters(count=5))
    table = predictions(tmp_path)
    assert compaction.compact(table, "time", now=NOON).replaced == 0
    assert compaction.compact(table, "time", now=DAY + timedelta(days=1, minutes=59)).replaced == 0
    assert compaction.compact(table, "time", now=LATER).replaced == 5
    assert compaction.compact(table, "time", now=LATER).replaced == 0


def test_a_day_out_of_order_is_sorted_once_it_is_over(tmp_path: Path) -> None:
    """A writer whose storage was away all day comes last; sorted, the files do not overlap."""
    moments = quarters(count=48)
    random.Random(3).shuffle(moments)
    fill(tmp_path, moments, each=300)
    table = predictions(tmp_path)
    before = open_journal(tmp_path).window(*EVER, PIXELS)
    assert compaction.compact(table, "time", now=NOON, target=20_000).sorted_days == ()
    done = compaction.compact(table, "time", now=LATER, target=20_000)
    assert done.sorted_days == ("2026-11-20",)
    files = files_of(DeltaTable(table.url), "time")
    assert len(files) > 2
    for one, following in itertools.pairwise(files):
        assert one.end <= following.start
    assert compaction.compact(table, "time", now=LATER, target=20_000).sorted_days == ()
    after = open_journal(tmp_path).window(*EVER, PIXELS)
    assert after.sort_by("_prediction_id").equals(before.sort_by("_prediction_id"))


def test_what_is_worth_doing_follows_from_the_files_alone() -> None:
    """A growing day waits for eight small files; large and orderly ones are left as they are."""

    def day(count: int, size: int, day: str = "2026-11-20", hours: float = 1) -> list[TableFile]:
        start = datetime.fromisoformat(f"{day}T00:00:00Z")
        return [
            TableFile(
                path=str(n),
                day=day,
                bytes=size,
                rows=10,
                start=start + timedelta(hours=n),
                end=start + timedelta(hours=n + hours),
            )
            for n in range(count)
        ]

    def planned(files: list[TableFile], now: datetime = LATER) -> compaction.Plan:
        return compaction.plan(files, now=now)

    large, small = compaction.TARGET, 1000
    assert planned(day(20, large)) == compaction.Plan()
    assert planned(day(7, small), NOON) == compaction.Plan()
    assert planned(day(8, small), NOON).merge == ("2026-11-20",)
    assert planned(day(1, small) + day(2, small, "2026-11-21")).merge == ("2026-11-21",)
    assert planned(day(20, large, hours=20)).sort == ("2026-11-20",)
    assert planned(day(20, large, hours=20), NOON).sort == ()
    assert planned(day(40, large, hours=20)).sort == (), "too large to be sorted"
    untimed = [TableFile(path=str(n), day="", bytes=small, rows=1) for n in range(9)]
    assert planned(untimed) == compaction.Plan(merge=("",))


def test_versions_with_other_columns_are_put_together(tmp_path: Path) -> None:
    """Rows from before a feature was added read as null in it, after compaction as before."""
    writer = open_writer(tmp_path)
    for n in range(9):
        columns = {"a": [float(n)]} | ({"b": ["x"]} if n > 4 else {})
        writer.append(column_rows([f"row-{n}"], columns))
        writer.flush()
    writer.close()
    before = open_journal(tmp_path).window(*EVER, ["a", "b"])
    assert compaction.compact(predictions(tmp_path), "time", now=NOON).replaced == 9
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
    compaction.compact(predictions(tmp_path), "time", now=LATER)
    assert stored(tmp_path) == found
    assert len(DeltaTable(tmp_path / "journal/digits/predictions").file_uris()) == 1
