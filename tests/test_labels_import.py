"""Files of labels into the log: any of three formats, each label once, and what went wrong told."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import project_kit as kit
import pytest
from journal_kit import (
    EVER,
    NOON,
    PIXELS,
    at,
    ids_of,
    label,
    open_journal,
    open_writer,
    tensor_rows,
)

from homeostat.errors import InputError
from homeostat.identifiers import uuid7
from homeostat.journal.delta import tables
from homeostat.journal.delta.storage import filesystem
from homeostat.journal.delta.writers import writers
from homeostat.journal.importing.label_rows import Layout
from homeostat.journal.importing.labels_import import (
    CHUNK,
    NO_PREDICTION,
    TOO_OLD,
    Import,
    Imported,
)
from homeostat.journal.keeping.upkeep import Keeping, upkeep
from homeostat.records import Task

NOW = at(90_000)
ROWS: list[dict[str, Any]] = [
    {"id": "a", "value": 3, "source": "review", "time": "2026-11-20T13:00:00+00:00"},
    {"id": "b", "value": "cat, or dog", "source": None, "time": "2026-11-20T15:00:00+02:00"},
    {"id": "a", "value": 4.0, "source": "second look", "time": "2026-11-20T14:00:00Z"},
    {"id": "c", "value": True, "source": "ü", "time": None},
]


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_tsv_gz(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with gzip.open(path, "wt", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


def write_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Typed: values are text here, times are times."""
    frame = pd.DataFrame(rows).assign(value=[str(row["value"]).lower() for row in rows])
    frame["value"] = frame["value"].replace("4.0", "4")
    frame["time"] = pd.to_datetime(frame["time"], utc=True, format="ISO8601")
    frame.to_parquet(path, index=False)


def import_(
    folder: Path,
    file: Path,
    layout: Layout | None = None,
    *,
    task: Task = Task.CLASSIFICATION,
    told: list[tuple[int, str, str]] | None = None,
    now: datetime = NOW,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Imported:
    def tell(*what: Any) -> None:
        if told is not None:
            told.append(what)

    return Import(
        url=str(folder / "journal"),
        model="digits",
        task=task,
        file=file,
        layout=layout or Layout(),
        tell=tell,
        progress=progress,
    ).run(now)


def predicted(folder: Path, ids: Sequence[str]) -> None:
    writer = open_writer(folder)
    writer.append(tensor_rows(ids))
    writer.close()


def labels_of(folder: Path) -> dict[str, str | None]:
    found = open_journal(folder).window(*EVER, PIXELS)
    return dict(zip(ids_of(found), found["_label"].to_pylist(), strict=True))


def stored(folder: Path) -> pd.DataFrame:
    """Every row of the labels table, as any engine reads it."""
    from deltalake import DeltaTable

    url = str(folder / "journal" / "digits" / "labels")
    return DeltaTable(url).to_pyarrow_dataset(filesystem=filesystem(url)).to_table().to_pandas()


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
    assert (found.stored, found.unmatched, found.refused) == (2, 0, len(frame) - 2)
    assert '"id" is empty' in told[0][2]
    if name.endswith("parquet"):
        assert "lost digits" in told[1][2]


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


def test_killed_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    """kill -9 after some commits; the same command again stores the rest, and every label once."""
    count = 6 * CHUNK
    (tmp_path / "homeostat.toml").write_text('home = "."\n[model]\nname = "digits"\n')
    write_many(tmp_path / "labels.csv", count)
    command = [sys.executable, "-P", "-m", "loop", "--project", str(tmp_path)]
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
    assert f"{before} labels were stored by an earlier run" in done.stdout
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
    assert "1 labels stored, of 2 rows: 1 label" in done.stdout
    assert "line 2 (no id): not a JSON object" in done.stdout
    assert (
        "1 labels have no prediction in the log: they count if it was made already" in done.stdout
    )
