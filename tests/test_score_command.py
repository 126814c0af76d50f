"""`homeostat score`: what goes in, what comes out, and what is told of rows without an answer."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from deltalake import DeltaTable, write_deltalake
from score_kit import (
    FEATURES,
    Scored,
    columns_project,
    frame,
    score,
    score_process,
    shapes_project,
)
from serving_kit import CLASSES, Network

from homeostat.identifiers import milliseconds_of
from homeostat.journal.reader import Journal
from homeostat.settings import Settings
from loop.cli import cli


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A network of four numbers; version 1 is the champion, version 2 is there."""
    return shapes_project(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def rows() -> pa.Table:
    return frame(1000)


def expected(rows: Any, version: int = 1) -> tuple[list[str], np.ndarray]:
    matrix = [list(row) for row in zip(*(rows[name].to_pylist() for name in FEATURES), strict=True)]
    said, shares = Network(version).expected(matrix)
    return said, np.array(shares)


def check(found: pa.Table, rows: pa.Table, version: int = 1) -> None:
    said, shares = expected(rows, version)
    assert found["prediction"].to_pylist() == said
    for at, name in enumerate(CLASSES):
        np.testing.assert_allclose(found[f"probability_{name}"], shares[:, at], atol=1e-5)
    assert set(found["model_version"].to_pylist()) == {str(version)}
    ids = found["prediction_id"].to_pylist()
    assert len(set(ids)) == len(rows)
    assert all(milliseconds_of(id_) for id_ in ids[:10])


def test_a_parquet_file(shapes: Settings, rows: pa.Table, tmp_path: Path) -> None:
    """Every row has the champion's answer, in the order of the input, beside its own columns."""
    pq.write_table(rows, tmp_path / "in.parquet", row_group_size=300)
    done = score(shapes, tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert done.status == 0
    assert "1,000 rows answered by version 1" in done.text
    found = pq.read_table(tmp_path / "out.parquet")
    check(found, rows)
    assert found.column_names[: len(rows.column_names)] == rows.column_names
    assert found.select(rows.column_names).equals(rows)


def test_another_version_and_fewer_columns(
    shapes: Settings, rows: pa.Table, tmp_path: Path
) -> None:
    """--version, --keep and --prefix say which version answers and what stands in the output."""
    pq.write_table(rows, tmp_path / "in.parquet")
    done = score(
        shapes,
        tmp_path / "in.parquet",
        tmp_path / "out.parquet",
        *("--version", "2", "--keep", "others", "--prefix", "m_"),
    )
    assert done.status == 0
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names[:2] == ["note", "m_prediction_id"]
    assert found["m_prediction"].to_pylist() == expected(rows, 2)[0]


def test_a_folder_with_partitions(shapes: Settings, rows: pa.Table, tmp_path: Path) -> None:
    """A folder of files, of which each may have its columns in another order, and of which the
    path may hold columns."""
    for day in ("mon", "tue"):
        (tmp_path / "in" / f"day={day}").mkdir(parents=True)
        part = rows.slice(0, 400) if day == "mon" else rows.slice(400)
        part = part.select(reversed(part.column_names)) if day == "tue" else part
        pq.write_table(part, tmp_path / "in" / f"day={day}" / "a.parquet")
    done = score(shapes, tmp_path / "in", tmp_path / "out")
    assert done.status == 0
    parts = sorted((tmp_path / "out").glob("part-*.parquet"))
    assert len(parts) == 2
    found = pa.concat_tables([pq.read_table(part) for part in parts])
    check(found, rows)
    assert found["day"].to_pylist() == ["mon"] * 400 + ["tue"] * 600


def test_csv_to_csv(shapes: Settings, rows: pa.Table, tmp_path: Path) -> None:
    """Text that is passed through stays as it was written: quotes, newlines, leading zeros."""
    notes = [f'0{i}, "so"\nto speak' for i in range(1000)]
    table = rows.set_column(4, "note", pa.array(notes))
    pacsv.write_csv(table, tmp_path / "in.csv")
    done = score(shapes, tmp_path / "in.csv", tmp_path / "out.csv")
    assert done.status == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["note"] for line in lines] == notes
    assert [line["prediction"] for line in lines] == expected(rows)[0]


def test_a_delta_table_to_a_delta_table(shapes: Settings, rows: pa.Table, tmp_path: Path) -> None:
    """The table is read as it stood when the run began; the answers are appended to another."""
    day = pa.array([f"d{i % 2}" for i in range(1000)])
    write_deltalake(tmp_path / "in", rows.append_column("day", day), partition_by=["day"])
    done = score(shapes, tmp_path / "in", tmp_path / "out", "--format", "delta")
    assert done.status == 0
    found = DeltaTable(tmp_path / "out").to_pyarrow_table()
    assert sorted(found["day"].to_pylist()) == sorted(day.to_pylist())
    order = rows.sort_by("weight"), found.sort_by("weight")
    check(order[1], order[0])


def test_runs_of_other_names_append_to_one_table(
    shapes: Settings, rows: pa.Table, tmp_path: Path
) -> None:
    """Each name once, however often it is given; a name is for tables, and names a folder."""
    for name in ("one", "two"):
        pq.write_table(rows.slice(0, 10), tmp_path / f"{name}.parquet")
    table = tmp_path / "out"
    for name in ("one", "two", "one"):
        source = tmp_path / f"{name}.parquet"
        assert score(shapes, source, table, "--format", "delta", "--run", name).status == 0
    assert DeltaTable(table).to_pyarrow_table().num_rows == 20
    other = score(shapes, tmp_path / "two.parquet", table, "--format", "delta", "--run", "one")
    assert "another --run" in other.error
    assert score(shapes, rows, tmp_path / "out.parquet", "--run", "one").status == 2
    assert score(shapes, rows, table, "--format", "delta", "--run", "../one").status == 2


def test_nothing_of_others_becomes_a_table(
    shapes: Settings, rows: pa.Table, tmp_path: Path
) -> None:
    """A folder that holds something else is refused, and stays as it was."""
    pq.write_table(rows, tmp_path / "rows.parquet")
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    done = score(shapes, tmp_path / "rows.parquet", folder, "--format", "delta")
    assert "is there already" in done.error
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_tensors_in_a_column_of_lists(shapes: Settings, rows: pa.Table, tmp_path: Path) -> None:
    """A column of lists, flat or as deep as the tensor, holds a whole row; lists of another shape
    are bad rows."""
    matrix = np.stack([rows[name].to_numpy() for name in FEATURES], axis=1).tolist()
    deep: list[list[list[float | None]] | None] = [[row[:2], row[2:]] for row in matrix]
    deep[3], deep[5], deep[7] = [[1.0, 2.0]], None, [[1.0, 2.0, 3.0], [4.0]]
    deep[9] = [[1.0, 2.0], [None, 4.0]]
    table = pa.table({"pixels": deep, "id": list(range(1000))})
    pq.write_table(table, tmp_path / "deep.parquet")
    done = score(shapes, tmp_path / "deep.parquet", tmp_path / "deep_out.parquet")
    assert done.status == 3
    found = pq.read_table(tmp_path / "deep_out.parquet")
    good = [at for at in range(1000) if at not in (3, 5, 7, 9)]
    assert found["id"].to_pylist() == good
    check(found, rows.take(good))
    assert [bad["row"] for bad in done.bad] == ["3", "5", "7", "9"]
    pq.write_table(pa.table({"pixels": matrix}), tmp_path / "flat.parquet")
    done = score(shapes, tmp_path / "flat.parquet", tmp_path / "flat_out.parquet")
    assert done.status == 0
    check(pq.read_table(tmp_path / "flat_out.parquet"), rows)


def bad_csv(folder: Path) -> Path:
    """Rows 2, 4, 5 and 7 have no answer."""
    path = folder / "bad.csv"
    path.write_text(
        "width,height,weight,shine,note\n"
        "1,2,3,4,a\n"
        "1,2,3,4,b\n"
        "1,,3,4,c\n"
        "\n"
        "1,2,3,4,d\n"
        "1,2,many,4,e\n"
        "1,2\n"
        "1,2,3,4,f\n"
        "1,2,3,inf,g\n"
    )
    return path


def test_bad_rows_are_told_and_do_not_end_the_run(shapes: Settings, tmp_path: Path) -> None:
    """Missing values, words for numbers, short lines: each by its number, with what is wrong."""
    done = score(shapes, bad_csv(tmp_path), tmp_path / "out.csv")
    assert done.status == 3
    assert "4 rows have no answer" in done.text
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [line["note"] for line in csv.DictReader(file)] == ["a", "b", "d", "f"]
    assert [(bad["row"], bad["column"]) for bad in done.bad] == [
        ("2", "height"),
        ("4", "weight"),
        ("5", ""),
        ("7", "shine"),
    ]
    assert "'many'" in done.bad[1]["problem"]


def test_strict_ends_at_a_bad_row(shapes: Settings, tmp_path: Path) -> None:
    """With --strict a bad row is an error, and there is no output."""
    done = score(shapes, bad_csv(tmp_path), tmp_path / "out.csv", "--strict")
    assert done.status == 1
    assert "row 2" in done.error
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (lambda t: t.drop_columns(["height"]), (), '"height"'),
        (lambda t: t.rename_columns(["widht", *t.column_names[1:]]), (), 'did you mean "widht"'),
        (lambda t: t.append_column("prediction", t["note"]), (), "--prefix"),
        (lambda t: t, ("--keep", "note,nothing"), '"nothing"'),
        (lambda t: t, ("--id-column", "nothing"), '"nothing"'),
        (lambda t: t, ("--version", "77"), "no version 77 of shapes; it has none yet"),
        (lambda t: t.set_column(0, "width", pa.array([{"a": 1}] * 1000)), (), "struct"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_scored(
    shapes: Settings, rows: pa.Table, tmp_path: Path, change: Any, options: Any, said: str
) -> None:
    """A missing column, a name that would stand twice, a version that is not there."""
    pq.write_table(change(rows), tmp_path / "in.parquet")
    done = score(shapes, tmp_path / "in.parquet", tmp_path / "out.parquet", *options)
    assert done.status in (1, 75)
    assert said in done.error
    assert not (tmp_path / "out.parquet").exists()
    pq.write_table(rows, tmp_path / "in.parquet")
    assert score(shapes, tmp_path / "in.parquet", tmp_path / "out.parquet").status == 0


def test_the_same_command_again_does_nothing(
    shapes: Settings, rows: pa.Table, tmp_path: Path
) -> None:
    """What is finished stays as it is, also when the champion has changed; --restart begins anew,
    and other options are refused rather than mixed."""
    pq.write_table(rows, tmp_path / "in.parquet")
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    assert score(shapes, source, target).status == 0
    before = target.read_bytes()
    again = score(shapes, source, target)
    assert again.status == 0
    assert "earlier run" in again.text
    assert target.read_bytes() == before
    other = score(shapes, source, target, "--keep", "none")
    assert other.status == 1
    assert "--restart" in other.error
    assert "with other options (--keep was all, now none): give the same" in other.error
    more = ("--keep", "note,width", "--prefix", "m_", "--log", "--version", "2")
    assert (
        "(--version was 1, now 2; --keep was all, now note,width; --prefix was not given, now m_; "
        "--log was not given, now given)"
    ) in score(shapes, source, target, *more).error
    assert score(shapes, source, target, "--keep", "none", "--restart").status == 0
    assert "note" not in pq.read_schema(target).names
    pq.write_table(rows.slice(1), source)
    changed = score(shapes, source, target, "--keep", "none")
    assert "was changed" in changed.error


def test_nothing_of_somebody_elses_is_written_over(
    shapes: Settings, rows: pa.Table, tmp_path: Path
) -> None:
    """An output that no run of ours began is left alone."""
    pq.write_table(rows, tmp_path / "in.parquet")
    (tmp_path / "out.parquet").write_text("mine")
    done = score(shapes, tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert done.status == 1
    assert "there already" in done.error
    assert (tmp_path / "out.parquet").read_text() == "mine"


@pytest.mark.parametrize("name", ["out.json", "out.jsonl", "out.csv.gz", "out.v2"])
def test_an_ending_that_says_nothing_of_the_format(
    shapes: Settings, rows: pa.Table, tmp_path: Path, name: str
) -> None:
    """Refused before anything is begun, with the endings there are; a format that is named makes
    a folder of it, which is gone on with without one."""
    pq.write_table(rows, tmp_path / "in.parquet")
    done = score(shapes, tmp_path / "in.parquet", tmp_path / name)
    assert done.status == 2
    said = " ".join(done.text.replace("│", " ").split())
    assert f"{name}: a file ends in .parquet or .csv" in said
    assert "--format parquet, csv or delta" in said
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]
    if name == "out.v2":
        how = ("--format", "parquet")
        assert score(shapes, tmp_path / "in.parquet", tmp_path / name, *how).status == 0
        assert "earlier run" in score(shapes, tmp_path / "in.parquet", tmp_path / name).text


def test_a_file_whose_ending_is_in_capitals(
    shapes: Settings, rows: pa.Table, tmp_path: Path
) -> None:
    """It is a file, of the format it says."""
    pq.write_table(rows, tmp_path / "in.parquet")
    assert score(shapes, tmp_path / "in.parquet", tmp_path / "OUT.CSV").status == 0
    with (tmp_path / "OUT.CSV").open(newline="") as file:
        assert [line["prediction"] for line in csv.DictReader(file)] == expected(rows)[0]


def test_it_says_when_the_model_is_loaded(shapes: Settings, rows: pa.Table, tmp_path: Path) -> None:
    """Apart from what the command has to say in the end, and for the version that answers."""
    pq.write_table(rows, tmp_path / "in.parquet")
    paths = [str(tmp_path / name) for name in ("in.parquet", "out.parquet")]
    order = ["--project", str(shapes.project), "score", *paths, "--version", "2"]
    done = CliRunner().invoke(cli, order)
    assert done.stderr == "version 2 is loaded; scoring\n"
    assert done.stdout.startswith("1,000 rows answered by version 2")
    assert CliRunner().invoke(cli, order).stderr == ""  # nothing was left to do


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A scikit-learn pipeline of columns: a whole number, a number and a colour."""
    return columns_project(tmp_path_factory.mktemp("columns"))


def test_categories_and_whole_numbers(columns: Settings, tmp_path: Path) -> None:
    """A pyfunc model of named columns; categories may be dictionaries, whole numbers must be."""
    table = pa.table(
        {
            "colour": pa.array(["red", "blue", None, "green"] * 5).dictionary_encode(),
            "count": pa.array([1.0, 2.5, 3.0, 4.0] * 5),
            "width": pa.array([1, 2, 3, 4] * 5),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    done = score(columns, tmp_path / "in.parquet", tmp_path / "out.parquet", "--version", "1")
    assert done.status == 3
    assert [bad["column"] for bad in done.bad[:2]] == ["count", "colour"]
    found = pq.read_table(tmp_path / "out.parquet")
    assert len(found) == 10
    assert found["prediction"].to_pylist()[::2] == ["stop"] * 5
    assert {"probability_go", "probability_stop", "probability_wait"} <= set(found.column_names)


def test_in_several_processes(shapes: Settings, tmp_path: Path) -> None:
    """Two processes write what one does, in the same order."""
    rows = frame(250_000)
    source = tmp_path / "in.parquet"
    pq.write_table(rows, source, row_group_size=60_000)
    for workers, how in (("1", score), ("2", score_process)):
        done = how(shapes, source, tmp_path / workers, "--workers", workers)
        assert done.status == 0, done.error
    one, two = (
        pa.concat_tables(
            [pq.read_table(part) for part in sorted((tmp_path / which).glob("part-*"))]
        )
        for which in ("1", "2")
    )
    assert one.drop_columns(["prediction_id"]).equals(two.drop_columns(["prediction_id"]))
    assert len(set(one["prediction_id"].to_pylist())) == 250_000


def test_without_a_champion(tmp_path: Path, rows: pa.Table) -> None:
    """Nothing promoted and no version named: said, with what to do."""
    settings = shapes_project(tmp_path / "project", champion=None)
    pq.write_table(rows, tmp_path / "in.parquet")
    done: Scored = score(settings, tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert done.status == 1
    assert "--version" in done.error


def test_the_state_names_what_was_done(shapes: Settings, rows: pa.Table, tmp_path: Path) -> None:
    """A finished run leaves its outcome beside the output, and nothing of its parts."""
    pq.write_table(rows, tmp_path / "in.parquet")
    score(shapes, tmp_path / "in.parquet", tmp_path / "out.parquet")
    state = tmp_path / "out.parquet.score"
    assert json.loads((state / "finished.json").read_text())["rows"] == 1000
    assert not (state / "staged").exists()


def test_an_input_without_rows(shapes: Settings, rows: pa.Table, tmp_path: Path) -> None:
    """There is an output, with the columns that were added and no row."""
    pq.write_table(rows.slice(0, 0), tmp_path / "in.parquet")
    assert score(shapes, tmp_path / "in.parquet", tmp_path / "out.parquet").status == 0
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.num_rows == 0
    assert "prediction" in found.column_names


def test_text_files_of_every_habit(shapes: Settings, tmp_path: Path) -> None:
    """A folder of CSV files: a byte order mark, Windows' line ends, no newline at the end, columns
    the model does not take between those it does; rows are numbered in each file."""
    folder = tmp_path / "in"
    folder.mkdir()
    head = "width,who,height,weight,shine"
    (folder / "a.csv").write_bytes(f"\ufeff{head}\r\n1,Zoë,2,3,4\r\n1,x,2,3,\r\n".encode())
    (folder / "b.csv").write_bytes(f'{head}\n1,"a,\n""b""",2,3,4\n 5 ,y,6e0,7,8'.encode())
    done = score(shapes, folder, tmp_path / "out.csv")
    assert done.status == 3
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["who"] for line in lines] == ["Zoë", 'a,\n"b"', "y"]
    matrix: list[list[float]] = [[1.0, 2, 3, 4], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert [line["prediction"] for line in lines] == Network(1).expected(matrix)[0]
    ((name, row),) = [(bad["file"], bad["row"]) for bad in done.bad]
    assert (Path(name).name, row) == ("a.csv", "1")


def test_ids_of_the_callers_own(shapes: Settings, rows: pa.Table, tmp_path: Path) -> None:
    """--id-column takes them, in the output and in the log, so that labels by these ids join."""
    pq.write_table(rows, tmp_path / "in.parquet")
    options = ("--id-column", "note", "--log")
    assert score(shapes, tmp_path / "in.parquet", tmp_path / "out.parquet", *options).status == 0
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["prediction_id"].to_pylist() == rows["note"].to_pylist()
    journal = Journal(shapes.journal_path, shapes.model.name, shapes.model.task)
    now, day = datetime.now(UTC), timedelta(days=1)
    logged = journal.window(now - day, now + day, FEATURES, roles=("batch",))
    assert set(logged["_prediction_id"].to_pylist()) == set(rows["note"].to_pylist())
    by_id = dict(
        zip(logged["_prediction_id"].to_pylist(), logged["width"].to_pylist(), strict=True)
    )
    assert by_id["row 7"] == pytest.approx(rows["width"][7].as_py())
