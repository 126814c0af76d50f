"""Labels come late, twice, early or never; rows are put aside and taken back."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable
from journal_kit import (
    EVER,
    NOON,
    PIXELS,
    SteppingClock,
    at,
    ids_of,
    label,
    open_journal,
    open_writer,
    tensor_rows,
)

from homeostat.errors import InputError
from homeostat.journal.encoding.recording import Recording
from homeostat.journal.encoding.sampling import shares
from homeostat.journal.reading.maturity import standing


def labels_in(folder: Path) -> dict[str, str | None]:
    window = open_journal(folder).window(*EVER, PIXELS)
    return dict(zip(ids_of(window), window["_label"].to_pylist(), strict=True))


def test_label_that_comes_later_joins_its_row(tmp_path: Path) -> None:
    """A label sent an hour after, and by another process, is found by its prediction's id."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a", "b"]))
    writer.flush()
    assert labels_in(tmp_path) == {"a": None, "b": None}
    writer.label([label("a", "3", at(3600), source="shop")])
    writer.close()
    open_journal(tmp_path).add_labels([label("b", "4", at(3700))], writer_id="import")
    assert labels_in(tmp_path) == {"a": "3", "b": "4"}


def test_newest_label_wins_by_time_then_by_arrival(tmp_path: Path) -> None:
    """A correction wins, an older label that arrives late does not, and history is kept."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a", "b", "c"]))
    writer.label([label("a", "1", at(10)), label("b", "1", at(10)), label("c", "1", at(10))])
    writer.flush()
    writer.label([label("a", "2", at(20)), label("b", "2", at(5))])
    writer.label([label("c", "2", at(10)), label("c", "3", at(10))])
    writer.close()
    assert labels_in(tmp_path) == {"a": "2", "b": "1", "c": "3"}
    assert DeltaTable(tmp_path / "journal/digits/labels").count() == 7


def test_labels_of_one_moment_keep_their_order_when_the_clock_stands(tmp_path: Path) -> None:
    """Of two calls with the same label time under a clock that does not move, the later wins."""
    writer = open_writer(tmp_path, clock=lambda: NOON)
    writer.append(tensor_rows(["a"]))
    for value in ("1", "2", "3"):
        writer.label([label("a", value)])
    writer.close()
    assert labels_in(tmp_path) == {"a": "3"}


def test_label_for_an_unknown_id_waits_for_its_row(tmp_path: Path) -> None:
    """It counts as pending until the prediction is in the table, and joins then."""
    writer = open_writer(tmp_path)
    writer.label([label("late", "5", at(1)), label("never", "6", at(1))])
    writer.label([label("late", "6", at(2))])
    writer.flush()
    assert open_journal(tmp_path).pending_labels() == 2
    writer.append(tensor_rows(["late"]))
    writer.close()
    assert open_journal(tmp_path).pending_labels() == 1
    assert labels_in(tmp_path) == {"late": "6"}


def test_other_names_are_kept_and_do_not_count_as_the_label(tmp_path: Path) -> None:
    """A label named "revenue" is stored, but is not compared with the prediction."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a"]))
    writer.label([label("a", "19.5", name="revenue"), label("x", "1", name="revenue")])
    writer.close()
    assert labels_in(tmp_path) == {"a": None}
    assert open_journal(tmp_path).pending_labels() == 0
    assert DeltaTable(tmp_path / "journal/digits/labels").count() == 2


def test_labels_before_the_window_are_not_taken_for_its_rows(tmp_path: Path) -> None:
    """Of an id used twice, the row in the window gets the label given after it."""
    clock = SteppingClock(at(-86_400 * 3))
    writer = open_writer(tmp_path, clock=clock)
    writer.append(tensor_rows(["a"], clock()))
    writer.label([label("a", "old", clock())])
    clock.now = NOON
    writer.append(tensor_rows(["a", "b"], clock()))
    writer.label([label("b", "new", clock())])
    writer.close()
    journal = open_journal(tmp_path)
    assert journal.window(NOON, at(60), PIXELS)["_label"].to_pylist() == [None, "new"]
    assert journal.window(*EVER, PIXELS)["_label"].to_pylist() == [None, "new"]
    (batch,) = journal.batches(*EVER, PIXELS)
    assert batch["_label"].to_pylist() == [None, "new"]


def test_two_imports_under_one_id_are_both_stored(tmp_path: Path) -> None:
    """add_labels again with the same writer id adds, it does not skip."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a", "b"]))
    writer.close()
    journal = open_journal(tmp_path)
    journal.add_labels([label("a", "1")], writer_id="server-1")
    journal.add_labels([label("b", "2")], writer_id="server-1")
    assert labels_in(tmp_path) == {"a": "1", "b": "2"}


def test_quarantine_hides_rows_until_released(tmp_path: Path) -> None:
    """Rows put aside are not in windows, unless asked for; releasing brings them back."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a", "b", "c"]))
    writer.close()
    journal = open_journal(tmp_path)
    assert journal.quarantine(["a", "b", "a"], "unit bug", key="check-1", now=NOON) == 2
    assert ids_of(journal.window(*EVER, PIXELS)) == ["c"]
    assert ids_of(journal.window(*EVER, PIXELS, limit=2)) == ["c"]
    assert ids_of(journal.window(*EVER, PIXELS, quarantined=True)) == ["a", "b", "c"]
    assert journal.release("check-1") == 2
    assert ids_of(journal.window(*EVER, PIXELS)) == ["a", "b", "c"]


def test_quarantine_is_counted_once_by_key(tmp_path: Path) -> None:
    """The same decision made again adds nothing; another key holds a row on its own."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a", "b"]))
    writer.close()
    journal = open_journal(tmp_path)
    assert journal.quarantine(["a"], "bug", key="one", now=NOON) == 1
    assert journal.quarantine(["a"], "bug", key="one", now=NOON) == 0
    assert journal.quarantine(["a", "b"], "bug", key="two", now=NOON) == 2
    assert journal.release("one") == 1
    assert journal.release("one") == 0
    assert ids_of(journal.window(*EVER, PIXELS)) == []
    assert journal.release("two") == 2
    assert journal.quarantine(["b"], "again", key="two", now=NOON) == 1
    assert ids_of(journal.window(*EVER, PIXELS)) == ["a"]
    assert DeltaTable(tmp_path / "journal/digits/quarantine").count() == 7


def test_range_of_time_is_put_aside_and_taken_back(tmp_path: Path) -> None:
    """A range hides the rows of its time and version, those that come later too, until released."""
    writer = open_writer(tmp_path)
    for second in range(4):
        writer.append(tensor_rows([f"one-{second}"], at(second)))
        writer.append(tensor_rows([f"two-{second}"], at(second), version="2"))
    writer.flush()
    journal = open_journal(tmp_path)
    outage = partial(journal.quarantine_range, version="2", key="outage", now=NOON)
    assert outage(at(1), at(3), "sensor") == 1
    assert outage(at(1), at(3), "sensor") == 0
    assert journal.quarantine_range(at(1), at(2), "sensor", key="all", now=NOON) == 1
    assert journal.quarantine(["one-3"], "bug", key="outage", now=NOON) == 1
    shown = ["one-0", "two-0", "one-2", "two-3"]
    assert ids_of(journal.window(*EVER, PIXELS)) == shown
    writer.append(tensor_rows(["late"], at(2.5), version="2"))
    writer.close()
    assert ids_of(journal.window(*EVER, PIXELS)) == shown
    assert ids_of(journal.newest(1, PIXELS)) == ["two-3"]
    assert journal.release("outage") == 2
    assert journal.release("outage") == 0
    rest = ["one-0", "two-0", "one-2", "two-2", "late", "one-3", "two-3"]
    assert ids_of(journal.window(*EVER, PIXELS)) == rest
    assert DeltaTable(tmp_path / "journal/digits/quarantine").count() == 5
    with pytest.raises(InputError, match="ends after"):
        journal.quarantine_range(at(1), at(1), "empty", key="k", now=NOON)


def test_row_put_aside_is_not_replaced_by_an_older_one(tmp_path: Path) -> None:
    """Of an id used twice, the newer row counts, also where that one is put aside."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a"], at(0)))
    writer.append(tensor_rows(["a", "b"], at(5)))
    writer.close()
    journal = open_journal(tmp_path)
    journal.quarantine_range(at(5), at(6), "bug", key="k", now=NOON)
    assert ids_of(journal.window(*EVER, PIXELS)) == []


def test_labels_of_several_names_are_read_apart(tmp_path: Path) -> None:
    """Feedback and business outcomes have names and sources; a window joins the one asked for."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a", "b"]))
    writer.label([label("a", "7", at(5)), label("a", "yes", at(6), name="liked", source="app")])
    writer.label(
        [
            label("b", "19.5", at(20), name="revenue", source="shop"),
            label("a", "2", at(10), name="revenue", source="shop"),
            label("x", "refused", at(30), name="revenue", source="bank"),
        ]
    )
    writer.flush()
    writer.label([label("b", "18", at(40), name="revenue", source="bank")])
    writer.close()
    journal = open_journal(tmp_path)
    assert journal.window(*EVER, PIXELS)["_label"].to_pylist() == ["7", None]
    assert journal.window(*EVER, PIXELS, label="liked")["_label"].to_pylist() == ["yes", None]
    assert journal.window(*EVER, PIXELS, label="nothing")["_label"].null_count == 2

    def revenue(*arguments: Any, **more: Any) -> list[tuple[Any, ...]]:
        found = journal.outcomes("revenue", *arguments, **more)
        columns = ("_prediction_id", "_label", "_number", "_source")
        return list(zip(*(found[name].to_pylist() for name in columns), strict=True))

    assert revenue(*EVER) == [
        ("a", "2", 2.0, "shop"),
        ("x", "refused", None, "bank"),
        ("b", "18", 18.0, "bank"),
    ]
    assert revenue(at(0), at(30)) == [("a", "2", 2.0, "shop")]
    assert revenue(at(10), at(30), history=True) == [
        ("a", "2", 2.0, "shop"),
        ("b", "19.5", 19.5, "shop"),
    ]
    assert journal.pending_labels(label="revenue") == 1
    assert open_journal(tmp_path / "none").outcomes("revenue", *EVER).num_rows == 0


def test_pending_labels_are_counted_since_a_time_and_without_what_was_not_logged(
    tmp_path: Path,
) -> None:
    """A label of a row that sampling left out waits for nothing."""
    clock = SteppingClock()
    writer = open_writer(tmp_path, clock=clock, recording=Recording(sample=0.5))
    ids = [f"row-{n}" for n in range(40)]
    logged = [each for each, u in zip(ids, shares(ids), strict=True) if u < 0.5]
    writer.append(tensor_rows(ids, at(0)))
    writer.label([label(each, "7", at(1)) for each in ids])
    clock.now = at(7 * 3600)
    strangers = [name for name in ("s1", "s2", "s3", "s4", "s5") if shares([name])[0] < 0.5]
    writer.label([label(each, "7", at(7 * 3600)) for each in strangers])
    writer.close()
    journal = open_journal(tmp_path)
    assert ids_of(journal.window(*EVER, PIXELS)) == logged
    assert strangers
    assert journal.pending_labels() == len(strangers)
    assert journal.pending_labels(since=at(6 * 3600)) == len(strangers)
    assert journal.pending_labels(since=at(12 * 3600)) == 0


def test_a_row_is_matured_pending_or_never_labelled_by_the_delay() -> None:
    """Before the delay is over nothing is known; after it, there is a label or there is none."""
    times = np.array([0, 50, 60, 61, 100])
    labelled = np.array([True, False, True, True, False])
    found = standing(times, labelled, now_us=100, delay_us=40)
    assert found.tolist() == ["matured", "never", "matured", "pending", "pending"]
