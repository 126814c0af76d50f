"""Which predictions an imported label belongs to, and how long an import is remembered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from journal_kit import NOON, at, label, open_writer, tensor_rows
from labels_import_kit import import_, labels_of, predicted, stored, write_csv, write_json_lines

from homeostat.identifiers import uuid7
from homeostat.journal.delta import tables
from homeostat.journal.delta.writers import writers
from homeostat.journal.importing.labels_import import TOO_OLD
from homeostat.journal.keeping.upkeep import Keeping, upkeep
from homeostat.records import Task


def test_what_has_no_prediction_is_told(tmp_path: Path) -> None:
    """Callers' own ids and ours, over several days of the log."""
    ours = [uuid7(int((NOON + timedelta(days=d)).timestamp() * 1e9)) for d in range(4)]
    writer = open_writer(tmp_path)
    for day, identifier in enumerate(ours[:3]):
        writer.append(tensor_rows([identifier, f"own-{day}"], NOON + timedelta(days=day)))
    writer.close()
    file = tmp_path / "labels.jsonl"
    ids = [*ours, "own-0", "own-2", "own-9"]
    write_json_lines(file, [{"id": identifier, "value": 1} for identifier in ids])
    told: list[tuple[int, str, str]] = []
    assert import_(tmp_path, file, told=told, now=NOON + timedelta(days=4)).unmatched == 2
    assert [(line, identifier) for line, identifier, _ in told] == [(4, ours[3]), (7, "own-9")]


def test_a_label_older_than_its_row_is_told_apart(tmp_path: Path) -> None:
    """It came, and is, more than an hour before the prediction, and is never joined to it; told by
    the run that stores it, and by one that finds it stored. One that came later joins."""
    file = tmp_path / "labels.jsonl"
    early = [{"id": name, "value": 1, "time": NOON.isoformat()} for name in ("a", "b")]
    write_json_lines(file, early)
    assert import_(tmp_path, file, now=NOON).unmatched == 2
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a"], at(3599)))
    writer.append(tensor_rows(["b", "c"], at(3605)))
    writer.close()
    told: list[tuple[int, str, str]] = []
    again = import_(tmp_path, file, told=told, now=at(7200))
    assert (again.before, again.unmatched, again.too_old) == (2, 0, 1)
    assert told == [(2, "b", TOO_OLD)]
    write_json_lines(file, [{"id": "c", "value": 1, "time": NOON.isoformat()}])
    assert import_(tmp_path, file, now=at(4)).too_old == 1
    assert labels_of(tmp_path) == {"a": "1", "b": None, "c": None}
    write_json_lines(file, [early[1]])
    assert import_(tmp_path, file, now=at(7200)).too_old == 0
    assert labels_of(tmp_path) == {"a": "1", "b": "1", "c": None}


@pytest.mark.parametrize("name", ["labels.parquet", "labels.csv", "labels.jsonl"])
def test_ids_that_are_numbers_are_whole(tmp_path: Path, name: str) -> None:
    """A column of numbers with a gap becomes one of floats in pandas; the ids are what they were.
    One that lost digits on the way is refused, and so is a gap."""
    predicted(tmp_path, ["12345", "-7"])
    file = tmp_path / name
    frame = pd.DataFrame({"id": [12345.0, -7.0, None, 1e17], "value": [1, 2, 3, 4]})
    frame["source"] = "2.0"  # a version, say: text stays as it is
    if name.endswith("parquet"):
        frame.to_parquet(file, index=False)
    elif name.endswith("csv"):
        frame = frame.head(3)
        frame.to_csv(file, index=False)
    else:
        frame.to_json(file, orient="records", lines=True, double_precision=1)
        file.write_text(file.read_text().replace("12345,", "12345.0,"))
    told: list[tuple[int, str, str]] = []
    found = import_(tmp_path, file, told=told)
    assert labels_of(tmp_path) == {"12345": "1", "-7": "2"}
    assert set(stored(tmp_path)["source"]) == {"2.0"}
    assert (found.stored, found.unmatched, found.refused) == (2, 0, len(frame) - 2)
    assert '"id" is empty' in told[0][2]
    if name.endswith("parquet"):
        assert "lost digits" in told[1][2]


def test_a_table_forgets_which_files_were_imported_long_ago(tmp_path: Path) -> None:
    """Each leaves its number in the table's log: upkeep takes those of a season ago away, and none
    of a writer."""
    now = datetime.now(UTC)
    writer = open_writer(tmp_path, clock=lambda: now - timedelta(days=300))
    writer.label([label("x", "1", now)])
    writer.close()
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    for file, days in ((old, 91), (new, 89)):
        write_csv(file, [{"id": file.stem, "value": 1}])
        import_(tmp_path, file, now=now - timedelta(days=days))
    keeping = Keeping(keep=timedelta(0), keep_bytes=None, keep_deleted=timedelta(days=1))
    table = tables.labels(str(tmp_path / "journal"), "digits")
    assert len(writers(table)) == 3
    upkeep(str(tmp_path / "journal"), "digits", Task.CLASSIFICATION, keeping, now=now)
    assert len(writers(table)) == 2
    assert import_(tmp_path, new, now=now).before == 1
    assert import_(tmp_path, old, now=now).stored == 1
