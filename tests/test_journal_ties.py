"""Rows, or labels, of one id and one moment: the same one counts, however they came."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from journal_kit import (
    EVER,
    NOON,
    PIXELS,
    label,
    open_journal,
    open_writer,
    tensor_rows,
)

from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.reader import Journal
from homeostat.journal.twin import MemoryJournal
from homeostat.records import Task

NAMES = ["_prediction_id", "_version", "_prediction", "p0", "_role"]
rows = st.tuples(
    st.sampled_from("ab"),
    st.sampled_from(["1", "2"]),
    st.sampled_from(["champion", "challenger", "shadow"]),
    st.sampled_from(["7", "8"]),
    st.integers(0, 3),
)


def batch(row: tuple[str, str, str, str, int]) -> PredictionBatch:
    identifier, version, role, said, value = row
    return tensor_rows(
        [identifier], version=version, role=role, predictions=[said], value=float(value)
    )


def in_memory(batches: Any) -> Journal:
    twin = MemoryJournal("digits", Task.CLASSIFICATION)
    for each in batches:
        twin.append(each)
        twin.flush()
    return twin


def read(journal: Journal, **more: Any) -> list[dict[str, Any]]:
    """Sorted, since rows of one moment have no order among ids."""
    window = journal.window(*EVER, PIXELS, **more).select(NAMES)
    batches = [
        row for part in journal.batches(*EVER, PIXELS, rows=1, **more) for row in part.to_pylist()
    ]
    found = sorted(window.to_pylist(), key=str)
    assert sorted(({name: row[name] for name in NAMES} for row in batches), key=str) == found
    return found


@settings(max_examples=60, deadline=None)
@given(given_rows=st.lists(rows, min_size=2, max_size=5), data=st.data())
def test_order_of_arrival_does_not_decide(given_rows: list[Any], data: st.DataObject) -> None:
    """The greatest version, role, … and then the greatest of all else, also where only inputs,
    which nobody asked for, differ."""
    shuffled = data.draw(st.permutations(given_rows))
    one, other = (in_memory(map(batch, each)) for each in (given_rows, shuffled))
    asked = {"roles": ["champion", "challenger", "shadow"]}
    found = read(one, **asked)
    assert found == read(other, **asked)
    theirs = [row for row in given_rows if row[0] == "a" and row[2] != "shadow"]
    mine = [r for r in found if r["_prediction_id"] == "a" and r["_role"] != "shadow"]
    assert [row["_version"] for row in mine] == ([max(row[1] for row in theirs)] if theirs else [])


def test_order_of_files_does_not_decide(tmp_path: Path) -> None:
    """In Delta tables as in memory, with quarantine of one of the versions."""
    same = [
        ("a", "2", "champion", "7", 1),
        ("a", "1", "champion", "8", 9),
        ("a", "2", "champion", "7", 3),
    ]
    found = []
    for turn, order in enumerate(permutations(same)):
        writer = open_writer(tmp_path / str(turn))
        for each in order:
            writer.append(batch(each))
            writer.flush()
        writer.close()
        journal = open_journal(tmp_path / str(turn))
        found.append(read(journal, roles=["champion"]))
        journal.quarantine_range(*EVER, "bug", key="k", version="2", now=NOON)
        assert read(journal, roles=["champion"]) == []
    assert found == [read(in_memory(map(batch, same)), roles=["champion"])] * 6
    assert found[0][0]["p0"] == 3.0


@settings(max_examples=60, deadline=None)
@given(
    given_values=st.lists(st.tuples(st.text(max_size=3), st.sampled_from(["a", "b"])), min_size=2),
    data=st.data(),
)
def test_labels_of_one_moment_from_many_places(
    given_values: list[tuple[str, str]], data: st.DataObject
) -> None:
    """Labels that came at once through several servers: the greatest source and value counts."""
    shuffled = data.draw(st.permutations(given_values))
    found = []
    for order in (given_values, shuffled):
        twin = in_memory([tensor_rows(["x"])])
        for at, (value, source) in enumerate(order):
            twin.add_labels([label("x", value, source=source)], writer_id=str(at), now=NOON)
        said = twin.outcomes("label", *EVER)["_label"].to_pylist()
        assert twin.window(*EVER, PIXELS)["_label"].to_pylist() == said
        history = twin.outcomes("label", *EVER, history=True)["_label"].to_pylist()
        assert len(history) == len(order)
        found.append((said, history))
    assert found[0] == found[1]
