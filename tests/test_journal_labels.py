"""Labels come late, twice, early or never; rows are put aside and taken back."""

from __future__ import annotations

from pathlib import Path

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
    window = open_journal(tmp_path).window(NOON, at(60), PIXELS)
    assert window["_label"].to_pylist() == [None, "new"]


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
