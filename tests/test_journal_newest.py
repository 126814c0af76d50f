"""The newest rows, however far back they lie, and no file read further back than that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, WriterProperties
from journal_kit import (
    EVER,
    NOON,
    PIXELS,
    at,
    column_rows,
    ids_of,
    open_journal,
    open_writer,
    tensor_rows,
    weighted,
)

from homeostat.errors import JournalUnavailable
from homeostat.journal.encoding.sampling import shares


def test_newest_reaches_back_as_far_as_it_must(tmp_path: Path) -> None:
    """The newest rows of a version, a slice or before a time, however far back they lie."""
    writer = open_writer(tmp_path)
    for hour in range(12):
        writer.append(
            column_rows([f"r{hour}"], {"x": [hour % 3]}, at(3600 * hour), version=str(hour % 4))
        )
        writer.flush()
    writer.close()
    journal = open_journal(tmp_path)
    assert ids_of(journal.newest(2, ["x"])) == ["r10", "r11"]
    assert ids_of(journal.newest(2, ["x"], versions=["0"])) == ["r4", "r8"]
    assert ids_of(journal.newest(2, ["x"], where={"x": [1]}, before=at(3600 * 6))) == ["r1", "r4"]
    assert ids_of(journal.newest(99, ["x"])) == [f"r{hour}" for hour in range(12)]
    assert ids_of(journal.newest(0, ["x"])) == []
    journal.quarantine(["r11"], "bug", key="k", now=NOON)
    assert ids_of(journal.newest(1, ["x"])) == ["r10"]


def test_newest_reads_no_further_back_than_it_must(tmp_path: Path) -> None:
    """Of a file with many rows only the parts that hold the newest are read, so that memory holds
    about as many rows as were wanted."""
    writer = open_writer(tmp_path)
    for turn in range(10):
        writer.append(tensor_rows([f"r{turn}-{n:03}" for n in range(100)], at(turn)))
        writer.flush()
    writer.close()
    table = DeltaTable(tmp_path / "journal/digits/predictions")
    table.optimize.compact(writer_properties=WriterProperties(max_row_group_size=100))
    (file,) = table.file_uris()
    groups = pq.read_metadata(file)
    assert groups.num_row_groups == 10
    for at_, second in ((n, groups.row_group(n).column(1).statistics.min) for n in range(10)):
        if second < at(7):
            spoil(Path(file), groups.row_group(at_))
    journal = open_journal(tmp_path)
    expected = [f"r{turn}-{n:03}" for turn in (7, 8, 9) for n in range(100)]
    assert ids_of(journal.newest(250, PIXELS)) == expected[50:]
    assert ids_of(journal.window(*EVER, PIXELS, limit=250)) == expected[50:]
    assert ids_of(journal.newest(200, PIXELS, before=at(9))) == expected[:200]
    with pytest.raises(JournalUnavailable):
        journal.newest(350, PIXELS)


def spoil(file: Path, group: Any) -> None:
    with file.open("r+b") as raw:
        for each in (group.column(at) for at in range(group.num_columns)):
            raw.seek(each.dictionary_page_offset or each.data_page_offset)
            raw.write(b"\xff" * each.total_compressed_size)


def test_newest_stand_for_as_many_whatever_lies_further_back(tmp_path: Path) -> None:
    """Rows are thinned to the lowest rate since the first of them, not to one of older rows."""
    ids = [f"row-{n}" for n in range(200)]
    old = [each for each, u in zip(ids, shares(ids), strict=True) if u < 0.1]
    weighted(tmp_path, old, [10.0] * len(old), 0)
    weighted(tmp_path, [f"new-{n}" for n in range(50)], [1.0] * 50, 5)
    journal = open_journal(tmp_path)
    assert ids_of(journal.newest(50, ["x"])) == [f"new-{n}" for n in range(50)]
    thinned = [each for each in (f"new-{n}" for n in range(50)) if shares([each])[0] < 0.1]
    assert ids_of(journal.newest(51, ["x"])) == [*old, *thinned][-51:]
    assert ids_of(journal.window(*EVER, ["x"])) == [*old, *thinned]
