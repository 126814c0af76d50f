"""What was predicted comes back from the log as it went in, in the window that was asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pytest
from deltalake import DeltaTable
from journal_kit import (
    EVER,
    PIXELS,
    Columns,
    at,
    column_rows,
    ids_of,
    label,
    open_journal,
    open_writer,
    tensor_rows,
)

from homeostat.errors import InputError, JournalUnavailable
from homeostat.records import Task

HERE = str(Path(__file__).parent)

SERVER = """
import sys
from pathlib import Path
from journal_kit import label, open_writer, tensor_rows, column_rows
from homeostat.journal.delta.model_log import of_model
from homeostat.journal.delta.store import DeltaStore
from homeostat.journal.reading.acceptance import misfit
from homeostat.records import Feature, ModelSpec, Task
from homeostat.settings_of_serving import JournalSettings
writer = open_writer(Path(sys.argv[1]))
writer.append(tensor_rows(["a", "b"]))
writer.append(column_rows(["c"], {"x": [None], "y": ["text"]}))
writer.label([label("a", "7")])
writer.flush()
spec = ModelSpec(
    model="digits", version="2", runtime="pyfunc", task=Task.CLASSIFICATION,
    features=(Feature(name="y"),),
)
log = of_model(DeltaStore(), str(Path(sys.argv[1]) / "journal"), "digits", Task.CLASSIFICATION)
assert "input_y: text in the log" in misfit(log, spec, JournalSettings())
slow = {"pandas", "mlflow", "evidently", "sqlalchemy"} & set(sys.modules)
print(writer.level().stored, sorted(slow))
writer.close()
"""

READER = """
import sys
from pathlib import Path
from journal_kit import EVER, PIXELS, open_journal
print(open_journal(Path(sys.argv[1])).window(*EVER, PIXELS).num_rows)
"""


def run_child(program: str, folder: Path) -> tuple[int, str, str]:
    child = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": HERE},
    )
    return child.returncode, child.stdout.strip(), child.stderr


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions on two days, with labels."""
    folder = tmp_path_factory.mktemp("log")
    writer = open_writer(folder)
    writer.append(tensor_rows(["a", "b"], at(0), value=0.0))
    writer.append(tensor_rows(["c"], at(10), version="2", value=1.0))
    writer.append(tensor_rows(["d"], at(86_400), version="2", value=2.0))
    writer.label([label("b", "7", at(60))])
    writer.close()
    return folder


def test_tensor_comes_back_as_one_column_a_feature(log: Path) -> None:
    """Every element is under its feature's name, as the float32 it was."""
    window = open_journal(log).window(*EVER, PIXELS, embedding=True)
    assert ids_of(window) == ["a", "b", "c", "d"]
    assert [window[name].to_pylist() for name in PIXELS] == [
        [0.0, 0.0, 1.0, 2.0],
        [1.0, 1.0, 2.0, 3.0],
        [2.0, 2.0, 3.0, 4.0],
    ]
    assert str(window.schema.field("p1").type) == "float"
    assert window["_time"].to_pylist()[2] == at(10)
    assert window["_version"].to_pylist() == ["1", "1", "2", "2"]
    assert window["_prediction"].to_pylist() == ["7"] * 4
    assert window["_label"].to_pylist() == [None, "7", None, None]
    assert window["_label_time"].to_pylist() == [None, at(60), None, None]
    assert window["_probabilities"].to_pylist() == [[0.25, 0.75]] * 4
    assert window["_embedding"].to_pylist() == [[0.0, 1.0, 2.0, 3.0]] * 4


def test_vectors_are_left_out_unless_asked_for(log: Path) -> None:
    """A window for drift of features carries no embedding and no probabilities."""
    names = open_journal(log).window(*EVER, PIXELS).schema.names
    assert names == [
        *PIXELS,
        "_prediction_id",
        "_time",
        "_version",
        "_prediction",
        "_label",
        "_label_time",
    ]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (at(0), at(10), ["a", "b"]),
        (at(10), at(10.000001), ["c"]),
        (at(0.000001), at(10), []),
        (at(11), at(86_400), []),
        (at(10), at(86_401), ["c", "d"]),
    ],
)
def test_window_takes_its_start_and_not_its_end(
    log: Path, start: datetime, end: datetime, expected: list[str]
) -> None:
    """start <= time < end, to the microsecond and over midnight."""
    assert ids_of(open_journal(log).window(start, end, PIXELS)) == expected


def test_window_of_versions_and_of_the_newest_rows(log: Path) -> None:
    """versions chooses, limit keeps the newest, and both go together."""
    journal = open_journal(log)
    assert ids_of(journal.window(*EVER, PIXELS, versions=["1"])) == ["a", "b"]
    assert ids_of(journal.window(*EVER, PIXELS, limit=2)) == ["c", "d"]
    assert ids_of(journal.window(*EVER, PIXELS, limit=100)) == ["a", "b", "c", "d"]
    assert ids_of(journal.window(*EVER, PIXELS, versions=["1"], limit=1)) == ["b"]
    assert ids_of(journal.window(*EVER, PIXELS, limit=0)) == []
    assert journal.newest_time() == at(86_400)


def test_wrong_number_of_tensor_features_is_told(log: Path) -> None:
    """A tensor's features are told apart by position, so a part of them cannot be read."""
    with pytest.raises(InputError, match=r"\[3\] elements, 2 features"):
        open_journal(log).window(*EVER, PIXELS[:2])


def test_empty_log_reads_as_an_empty_window(tmp_path: Path) -> None:
    """Before the first row there is a window with all columns and no rows."""
    journal = open_journal(tmp_path)
    window = journal.window(*EVER, ["x"], embedding=True, limit=5)
    assert window.num_rows == 0
    assert window.schema.names[0] == "x"
    assert "_embedding" in window.schema.names
    assert journal.newest_time() is None
    assert journal.pending_labels() == 0
    assert journal.release("nothing") == 0


def test_named_columns_keep_numbers_texts_and_nulls(tmp_path: Path) -> None:
    """Columns of numbers and of texts come back, with NaN, null, umlauts and odd names."""
    columns: Columns = {
        "mean radius (cm)": [1, 2.5, None, float("nan")],
        "a.b": [None, None, None, None],
        "shop": ["Köln", None, "", 'say "hi"'],
    }
    writer = open_writer(tmp_path)
    writer.append(column_rows(["a", "b", "c", "d"], columns))
    writer.close()
    window = open_journal(tmp_path).window(*EVER, tuple(columns))
    radius = window["mean radius (cm)"].to_pylist()
    assert radius[:3] == [1.0, 2.5, None]
    assert np.isnan(radius[3])
    assert window["a.b"].to_pylist() == [None] * 4
    assert window["shop"].to_pylist() == columns["shop"]


def test_matrix_of_named_columns_and_regression(tmp_path: Path) -> None:
    """An all-number model with names is stored by column; its answers and labels are numbers."""
    writer = open_writer(tmp_path, task=Task.REGRESSION)
    matrix = np.array([[1.0, 2.0], [3.0, 4.0]])
    rows = tensor_rows(["a", "b"], features=("u", "v"), matrix=matrix, predictions=[1.5, 2.5])
    writer.append(rows)
    writer.append(
        column_rows(["c"], {"u": [5.0], "v": [6.0]}, at(1), predictions=[np.float64(3.5)])
    )
    writer.label([label("b", "2.25"), label("c", "n/a")])
    writer.close()
    window = open_journal(tmp_path, Task.REGRESSION).window(*EVER, ["u", "v"])
    assert window["v"].to_pylist() == [2.0, 4.0, 6.0]
    assert window["_prediction"].to_pylist() == [1.5, 2.5, 3.5]
    assert window["_label"].to_pylist() == [None, 2.25, None]


def test_one_more_feature_appends_and_old_rows_read_null(tmp_path: Path) -> None:
    """A new version's new column widens the table; earlier rows have null there."""
    writer = open_writer(tmp_path)
    writer.append(column_rows(["a"], {"x": [1.0]}))
    writer.flush()
    writer.append(column_rows(["b"], {"x": [2.0], "y": ["new"]}, at(1), version="2"))
    writer.append(column_rows(["c"], {"x": [3.0]}, at(2)))
    writer.close()
    window = open_journal(tmp_path).window(*EVER, ["x", "y", "z"])
    assert window["x"].to_pylist() == [1.0, 2.0, 3.0]
    assert window["y"].to_pylist() == [None, "new", None]
    assert window["z"].to_pylist() == [None, None, None]


def test_rows_that_fit_no_column_are_set_aside_and_told(tmp_path: Path) -> None:
    """Text for a column of numbers blocks nobody else, is said, and stays in a file."""
    writer = open_writer(tmp_path)
    writer.append(column_rows(["a"], {"x": [1.0]}))
    writer.flush()
    writer.append(column_rows(["b"], {"x": ["tall"]}, at(1)))
    writer.append(column_rows(["c"], {"x": [3.0]}, at(2)))
    with pytest.raises(JournalUnavailable, match="input_x"):
        writer.flush()
    writer.close()
    assert ids_of(open_journal(tmp_path).window(*EVER, ["x"])) == ["a", "c"]
    assert len(list(tmp_path.glob("spool/digits/server-1/rejected/*.arrows"))) == 1


def test_of_rows_with_the_same_id_the_newest_counts(tmp_path: Path) -> None:
    """A caller that sends its own id again has one row in a window, the newer one."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["mine", "other"], at(0), value=1.0))
    writer.flush()
    writer.append(tensor_rows(["mine"], at(5), value=9.0))
    writer.close()
    window = open_journal(tmp_path).window(*EVER, PIXELS)
    assert ids_of(window) == ["other", "mine"]
    assert window["p0"].to_pylist() == [1.0, 9.0]
    assert ids_of(open_journal(tmp_path).window(at(0), at(5), PIXELS)) == ["mine", "other"]


def test_batch_whose_columns_do_not_fit_is_refused(tmp_path: Path) -> None:
    """Nothing of a batch with fewer predictions than ids is stored."""
    writer = open_writer(tmp_path)
    with pytest.raises(InputError):
        writer.append(tensor_rows(["a", "b"], predictions=["7"]))
    writer.append(tensor_rows(["c"]))
    writer.close()
    assert ids_of(open_journal(tmp_path).window(*EVER, PIXELS)) == ["c"]


def test_another_engine_reads_the_tables(log: Path) -> None:
    """DuckDB reads the Parquet files that the Delta log names, partitioned by model and day."""
    table = DeltaTable(log / "journal" / "digits" / "predictions")
    assert table.metadata().partition_columns == ["model", "date"]
    found = duckdb.execute(
        "select date::varchar, count(*), sum(input[3]), sum(weight), bool_or(cached) "
        f"from read_parquet({table.file_uris()}, hive_partitioning=true) group by 1 order by 1"
    ).fetchall()
    assert found == [("2026-11-20", 3, 7.0, 3.0, False), ("2026-11-21", 1, 4.0, 1.0, False)]


def test_server_side_imports_no_pandas(tmp_path: Path) -> None:
    """A process that appends, labels, commits and asks what fits never imports pandas, and ends
    cleanly."""
    assert run_child(SERVER, tmp_path) == (0, "3 []", "")


def test_reading_processes_end_cleanly(log: Path) -> None:
    """Children that read a window do not abort at their exit (deltalake's filesystem does)."""
    assert [run_child(READER, log) for _ in range(2)] == [(0, "4", "")] * 2
