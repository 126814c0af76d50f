"""Files of labels into the log: any of three formats, each label once, and what went wrong told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import project_kit as kit
import pytest
from journal_kit import at
from labels_import_kit import (
    ROWS,
    import_,
    labels_of,
    predicted,
    stored,
    write_csv,
    write_json_lines,
    write_parquet,
    write_tsv_gz,
)

from homeostat.errors import InputError
from homeostat.journal.importing.label_rows import Layout
from homeostat.journal.importing.labels_import import CHUNK, NO_PREDICTION, Imported
from homeostat.records import Task


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("labels.csv", write_csv),
        ("labels.tsv.gz", write_tsv_gz),
        ("labels.jsonl", write_json_lines),
        ("labels.parquet", write_parquet),
    ],
)
def test_a_file_of_labels_is_stored(
    tmp_path: Path, name: str, write: Callable[[Path, Any], None]
) -> None:
    """Sources and times are kept, the latest of a prediction wins, a number is a class's text."""
    predicted(tmp_path, ["a", "b", "c", "d"])
    write(tmp_path / name, ROWS)
    found = import_(tmp_path, tmp_path / name)
    assert (found.stored, found.refused, found.unmatched) == (4, 0, 0)
    assert labels_of(tmp_path) == {
        "a": "4",
        "b": "cat, or dog",
        "c": "true",
        "d": None,
    }
    rows = stored(tmp_path).set_index("ordinal").sort_index()
    assert rows["source"].tolist() == ["review", "", "second look", "ü"]
    assert rows["time"].tolist() == [at(3600), at(3600), at(7200), at(90_000)]


def test_feedback_and_outcomes_are_labels_with_a_name(tmp_path: Path) -> None:
    """One column of a file is one kind of label; it is not what predictions are compared with."""
    predicted(tmp_path, ["a", "b"])
    file = tmp_path / "week.csv"
    write_csv(
        file,
        [
            {"id": "a", "liked": "True", "revenue": "12.50", "truth": "3.0"},
            {"id": "b", "liked": "False", "revenue": "0", "truth": "7"},
        ],
    )
    import_(tmp_path, file, Layout(value="liked", all_names="thumbs", all_sources="app"))
    import_(tmp_path, file, Layout(value="revenue", all_names="revenue"))
    import_(tmp_path, file, Layout(value="truth"))
    assert labels_of(tmp_path) == {"a": "3", "b": "7"}
    rows = stored(tmp_path)
    kept = set(zip(rows["prediction_id"], rows["name"], rows["value"], rows["source"], strict=True))
    assert kept >= {("a", "thumbs", "true", "app"), ("b", "thumbs", "false", "app")}
    assert kept >= {("a", "revenue", "12.50", ""), ("b", "revenue", "0", "")}


def test_what_is_wrong_is_told_by_its_line(tmp_path: Path) -> None:
    """Refused rows do not keep the others from being stored, and the file's own lines are named."""
    predicted(tmp_path, ["a"])
    file = tmp_path / "labels.csv"
    file.write_bytes(
        b"id,value,time\n"
        b'a,"two\nlines",2026-11-20T13:00:00Z\n'
        b",3,2026-11-20T13:00:00Z\n"
        b"a,,2026-11-20T13:00:00Z\n"
        b"a,3,yesterday\n"
        b"a,3,2026-11-20T13:00:00\n"
        b"a,3\n"
        b"\n"
        b"a,\xff,\n" + b"x" * 129 + b",3,\n" + b"nobody,3,2026-11-20T13:00:00Z\n"
    )
    told: list[tuple[int, str, str]] = []
    found = import_(tmp_path, file, told=told)
    assert (found.stored, found.refused, found.unmatched) == (2, 7, 1)
    lines = {line: problem for line, _, problem in told}
    assert sorted(lines) == [4, 5, 6, 7, 8, 10, 11, 12]
    assert lines[4] == '"id" is empty'
    assert lines[5] == "a label may not be null"
    assert "2026-01-31T12:00:00Z" in lines[6]
    assert "--utc" in lines[7]
    assert "has 2 cells, the first line has 3" in lines[8]
    assert "UTF-8" in lines[10]
    assert "128" in lines[11]
    assert lines[12] == "no prediction has this id"
    again = import_(tmp_path, file, Layout(utc=True))
    assert again.refused == 6


def test_a_regression_takes_numbers_only_for_what_is_compared(tmp_path: Path) -> None:
    """A corrected answer in words is a label of another name."""
    file = tmp_path / "labels.jsonl"
    write_json_lines(
        file,
        [
            {"id": "a", "value": 2.5},
            {"id": "b", "value": "much"},
            {"id": "c", "value": "much", "name": "comment"},
        ],
    )
    told: list[tuple[int, str, str]] = []
    found = import_(tmp_path, file, task=Task.REGRESSION, told=told)
    assert (found.stored, found.refused, found.names) == (2, 1, {"label": 1, "comment": 1})
    assert told[0][:2] == (2, "b")


def test_an_outcome_that_is_no_number_is_refused(tmp_path: Path) -> None:
    """ "nan" reads as a number, and would spoil every sum; a class may be called so."""
    file = tmp_path / "labels.csv"
    file.write_text(
        "id,value,name\na,nan,revenue\nb,-inf,revenue\nc,none,revenue\nd,nan,label\ne,1e3,revenue\n"
    )
    told: list[tuple[int, str, str]] = []
    found = import_(tmp_path, file, told=told)
    assert (found.stored, found.refused) == (3, 2)
    refused = {line: problem for line, _, problem in told if problem != NO_PREDICTION}
    assert sorted(refused) == [2, 3]
    assert refused[2].startswith("'nan' as \"revenue\" would be read as a number")


def test_an_import_of_the_same_file_stores_nothing_twice(tmp_path: Path) -> None:
    """Under another name too; another column, or more rows, is another import."""
    file = tmp_path / "labels.csv"
    write_csv(file, ROWS)
    assert import_(tmp_path, file).stored == 4
    copy = tmp_path / "again.csv"
    copy.write_bytes(file.read_bytes())
    again = import_(tmp_path, copy)
    assert (again.stored, again.before) == (0, 4)
    write_csv(copy, [*ROWS, {"id": "d", "value": 9}])
    assert import_(tmp_path, copy).stored == 5


def test_two_at_once_store_every_label_once(tmp_path: Path) -> None:
    """Two people import one file at the same moment."""
    file = tmp_path / "labels.csv"
    write_many(file, 2 * CHUNK)
    found: list[Imported] = []
    threads = [
        threading.Thread(target=lambda: found.append(import_(tmp_path, file))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each.stored for each in found) == 2 * CHUNK
    assert stored(tmp_path)["prediction_id"].is_unique


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    """Its rows would be cut otherwise the next time."""
    file = tmp_path / "labels.csv"
    write_many(file, CHUNK + 1)

    def grow(*_: Any) -> None:
        with file.open("a") as more:
            more.write("late,1\n")

    with pytest.raises(InputError, match="was changed while it was read"):
        import_(tmp_path, file, progress=grow)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "labels.csv",
            b"prediction,value\n1,2\n",
            'no column "id".*prediction, value.*--id-column',
        ),
        ("labels.xlsx", b"", r"\.csv, \.tsv"),
        ("labels.parquet", b"no parquet", "not a Parquet file"),
        ("labels.csv.gz", b"no gzip", "cannot be unpacked"),
    ],
)
def test_a_file_that_is_not_one_of_labels_is_refused(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    """Before anything is stored, with what to do."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=problem):
        import_(tmp_path, tmp_path / name)


def write_many(file: Path, count: int) -> None:
    with file.open("w") as rows:
        rows.write("id,value\n")
        rows.writelines(f"id-{number:07d},{number % 10}\n" for number in range(count))


# The command, but that it gets no further than the third commit.
NEVER_ENDS = """
import time
from homeostat.journal.importing import labels_import
from loop.cli import main

def commit(*given, version, **more):
    if version == 3:
        time.sleep(600)
    return real(*given, version=version, **more)

real, labels_import.commit = labels_import.commit, commit
main()
"""


def test_killed_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    """kill -9 after some commits; the same command again stores the rest, and every label once."""
    count = 6 * CHUNK
    (tmp_path / "homeostat.toml").write_text('home = "."\n[model]\nname = "digits"\n')
    write_many(tmp_path / "labels.csv", count)
    command = [sys.executable, "-P", "-c", NEVER_ENDS, "--project", str(tmp_path)]
    command += ["labels", "import", str(tmp_path / "labels.csv")]
    running = subprocess.Popen(command, env=dict(kit.environ()), stdout=subprocess.DEVNULL)
    log = tmp_path / "journal" / "digits" / "labels" / "_delta_log"
    kit.until("a second commit", lambda: (log / f"{2:020d}.json").exists())
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    before = len(stored(tmp_path))
    assert 0 < before < count
    report = tmp_path / "report.csv"
    done = kit.homeostat(
        tmp_path, "labels", "import", str(tmp_path / "labels.csv"), "--report", str(report)
    )
    assert done.returncode == 0, done.stderr
    assert f"stored by an earlier run of the same import: {before}" in done.stdout
    rows = stored(tmp_path)
    assert len(rows) == count
    assert rows["prediction_id"].is_unique
    assert sum(1 for _ in report.open()) == count + 1  # nothing was ever predicted here


def test_the_command_tells_and_its_status_says_whether_all_was_stored(tmp_path: Path) -> None:
    """1 with refused lines, which are shown; 0 when everything could be read."""
    (tmp_path / "homeostat.toml").write_text('home = "."\n[model]\nname = "digits"\n')
    (tmp_path / "labels.jsonl").write_text('{"id": "a", "value": 1}\nnot json\n')
    done = kit.homeostat(tmp_path, "labels", "import", str(tmp_path / "labels.jsonl"))
    assert done.returncode == 1
    assert "labels stored: 1 of 2 rows\n" in done.stdout
    assert "line 2 (no id): not a JSON object" in done.stdout
    assert "without a prediction in the log: 1; they count if it was made already" in done.stdout
