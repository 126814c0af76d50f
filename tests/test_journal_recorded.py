"""A value that was never written down is no null: rows that lack what is asked are left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from journal_kit import (
    EVER,
    PIXELS,
    Columns,
    at,
    column_rows,
    ids_of,
    open_journal,
    open_writer,
    tensor_rows,
)

from homeostat.errors import InputError
from homeostat.journal.encoding.recording import Recording
from homeostat.journal.export import export
from homeostat.journal.reader import Journal
from homeostat.journal.tail import tail
from homeostat.journal.twin import MemoryJournal
from homeostat.records import Task

KEY = b"a key of some length"
RECORDINGS = {
    "full": Recording(),
    "described": Recording(inputs="descriptors"),
    "none": Recording(inputs="none"),
    "redacted": Recording(redact=frozenset(["x"])),
    "hashed": Recording(hash=frozenset(["shop"]), hash_key=KEY),
    "again": Recording(),
}


def logged_under_all(folder: Path) -> Journal:
    """Two rows under each of some settings; under each, x is null in the first."""
    for second, (name, recording) in enumerate(RECORDINGS.items()):
        writer = open_writer(folder, recording=recording)
        rows: Columns = {"x": [None, float(second)], "y": [1.0, 2.0], "shop": ["Bonn", "Köln"]}
        writer.append(column_rows([f"{name}-0", f"{name}-1"], rows, at(second)))
        writer.close()
    return open_journal(folder)


def read_in_three_ways(journal: Journal, features: Any, **more: Any) -> tuple[list[str], int]:
    """Ids and the number left out, which are the same for a window, the newest and batches."""
    told: list[list[int]] = [[], [], []]
    window = journal.window(*EVER, features, left_out=told[0].append, **more)
    newest = journal.newest(1000, features, left_out=told[1].append, **more)
    parts = list(journal.batches(*EVER, features, rows=3, left_out=told[2].append, **more))
    assert newest.equals(window)
    assert pa.Table.from_batches(parts, window.schema).equals(window)
    assert sum(told[0]) == sum(told[1]) == sum(told[2])
    return ids_of(window), sum(told[0])


def of(*names: str) -> list[str]:
    return [f"{name}-{n}" for name in names for n in (0, 1)]


def test_rows_that_lack_what_is_asked_are_left_out_and_counted(tmp_path: Path) -> None:
    """By each row's own settings; what is null in a row that was logged whole stays null."""
    journal = logged_under_all(tmp_path)
    assert read_in_three_ways(journal, ["x"]) == (of("full", "hashed", "again"), 6)
    assert read_in_three_ways(journal, ["shop"]) == (of("full", "redacted", "again"), 6)
    assert read_in_three_ways(journal, ["y"]) == (of("full", "redacted", "hashed", "again"), 4)
    assert read_in_three_ways(journal, ["x", "shop"]) == (of("full", "again"), 8)
    assert read_in_three_ways(journal, []) == (of(*RECORDINGS), 0)
    assert journal.window(*EVER, ["x"])["x"].to_pylist()[:2] == [None, 0.0]


def test_slice_by_what_was_hidden_is_no_slice_of_nulls(tmp_path: Path) -> None:
    """Rows of a redacted feature are not among those where it is null."""
    journal = logged_under_all(tmp_path)
    asked: dict[str, Any] = {"where": {"x": [None]}}
    assert read_in_three_ways(journal, [], **asked) == (["full-0", "hashed-0", "again-0"], 6)


def test_newest_rows_are_of_those_that_hold_what_is_asked(tmp_path: Path) -> None:
    """A limit counts rows that are given; told are those left out since the first of these."""
    journal = logged_under_all(tmp_path)
    told: list[int] = []
    newest = journal.newest(3, ["shop"], left_out=told.append)
    assert ids_of(newest) == ["redacted-1", *of("again")]
    assert told == [2]
    assert ids_of(journal.window(*EVER, ["shop"], limit=5)) == ["full-1", *of("redacted", "again")]


def test_row_left_out_is_not_replaced_by_an_older_one(tmp_path: Path) -> None:
    """Of an id used twice the newer row counts, also where that one lacks what is asked."""
    for second, recording in enumerate([Recording(), Recording(inputs="none")]):
        writer = open_writer(tmp_path, recording=recording)
        writer.append(column_rows(["a"], {"x": [1.0]}, at(second)))
        writer.close()
    assert read_in_three_ways(open_journal(tmp_path), ["x"]) == ([], 1)


def test_rows_are_taken_as_recorded_where_asked(tmp_path: Path) -> None:
    """Nulls, NaN and hashes, for who wants to see what lies there: an export and a tail do."""
    journal = logged_under_all(tmp_path)
    asked = ["x", "y", "shop"]
    assert read_in_three_ways(journal, asked, as_recorded=asked) == (of(*RECORDINGS), 0)
    whole = journal.window(*EVER, asked, as_recorded=asked, also=["_recorded"])
    said = whole["_recorded"].to_pylist()
    assert said[0] is None
    assert json.loads(said[2]) == {"inputs": "descriptors"}
    assert export(journal, tmp_path / "all.jsonl", *EVER, asked) == 12
    (shown,) = tail(journal, asked, 20, follow=False)
    assert ids_of(shown) == of(*RECORDINGS)


def tensors_of_two_widths(journal: Any) -> None:
    for second in range(0, 12, 3):
        journal.append(tensor_rows([f"three-{second}"], at(second)))
        wide = np.ones((2, 4), np.float32)
        journal.append(
            tensor_rows(
                [f"four-{second}", f"four-{second}-b"],
                at(second + 1),
                matrix=wide,
                features=("p0", "p1", "p2", "p3"),
                version="2",
            )
        )
        journal.append(column_rows([f"named-{second}"], {"p0": [5.0]}, at(second + 2)))
        journal.flush()
    journal.close()


@pytest.mark.parametrize("where", ["tables", "memory"])
def test_rows_of_a_tensor_with_another_width_are_left_out(tmp_path: Path, where: str) -> None:
    """The same for a window, the newest and batches; an error where no row has the width."""
    journal: Journal
    if where == "memory":
        journal = MemoryJournal("digits", Task.CLASSIFICATION)
        tensors_of_two_widths(journal)
    else:
        tensors_of_two_widths(open_writer(tmp_path))
        journal = open_journal(tmp_path)
    ids, left_out = read_in_three_ways(journal, PIXELS)
    assert ids == [f"{kind}-{second}" for second in range(0, 12, 3) for kind in ("three", "named")]
    assert left_out == 8
    assert read_in_three_ways(journal, ["p0", "p1", "p2", "p3"])[1] == 4
    assert read_in_three_ways(journal, PIXELS, where={"p0": [0.5]})[1] == 8
    for read in (
        lambda: journal.window(*EVER, PIXELS[:2]),
        lambda: journal.newest(3, PIXELS[:2]),
        lambda: list(journal.batches(*EVER, PIXELS[:2])),
        lambda: journal.window(*EVER, PIXELS, versions=["2"]),
        lambda: list(journal.batches(*EVER, PIXELS, versions=["2"])),
    ):
        with pytest.raises(InputError, match="name every element"):
            read()


def test_twin_leaves_out_what_it_did_not_record() -> None:
    """The log in memory does as the tables do."""
    recording = Recording(redact=frozenset(["x"]))
    twin = MemoryJournal("digits", Task.CLASSIFICATION, recording=recording)
    twin.append(column_rows(["a"], {"x": [1.0], "y": [2.0]}))
    twin.flush()
    assert read_in_three_ways(twin, ["y"]) == (["a"], 0)
    assert read_in_three_ways(twin, ["x", "y"]) == ([], 1)
