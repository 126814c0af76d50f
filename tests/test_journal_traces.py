"""Files made of the log's rows know whose rows they hold, and can be rid of them."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from homeostat.errors import IntegrityError
from homeostat.journal.forgetting import traces


def written(folder: Path) -> Path:
    path = folder / "train.parquet"
    table = pa.table({"x": [0.0, 1.0, 2.0, 3.0]})
    traces.write_traced(path, table, [None, "a", "b", "c"], [None, "ann", "bob", "ann"])
    return path


def trace_of(path: Path) -> list[tuple[str | None, str | None]]:
    found = traces.read_trace(path)
    return list(zip(found["prediction_id"].to_pylist(), found["key"].to_pylist(), strict=True))


def test_rows_go_from_the_file_and_from_its_trace(tmp_path: Path) -> None:
    """By id or by key; rows that are none of the log's stay, and so do types and metadata."""
    path = written(tmp_path)
    assert traces.trace_path(path).name == "train.ids.parquet"
    assert traces.without(path, keys=["ann"]) == 2
    assert traces.without(path, keys=["ann"], ids=["nobody"]) == 0
    assert pq.read_table(path)["x"].to_pylist() == [0.0, 2.0]
    assert trace_of(path) == [(None, None), ("b", "bob")]
    assert traces.without(path, ids=["b"]) == 1
    assert trace_of(path) == [(None, None)]
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "train.ids.parquet",
        "train.parquet",
    ]


def test_file_without_a_trace_holds_no_rows_of_the_log(tmp_path: Path) -> None:
    """The project's own training data, say: nothing of it is touched."""
    path = tmp_path / "train.parquet"
    table = pa.table({"x": [1.0]})
    pq.write_table(table, path)
    assert trace_of(path) == [(None, None)]
    assert traces.without(path, ids=["a"]) == 0
    traces.write_traced(path, table, ["a"], [None])
    assert traces.without(path, ids=["a"]) == 1


@pytest.mark.parametrize("file_is_new", [False, True])
def test_killed_between_file_and_trace_they_still_belong_together(
    tmp_path: Path, file_is_new: bool
) -> None:
    """Whoever reads next finds the trace of the file that is there."""
    path = written(tmp_path)
    old = path.read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    copy = other / "train.parquet"
    table = pa.table({"x": [9.0, 8.0, 7.0, 6.0]})
    traces.write_traced(copy, table, ["p", "q", "r", "s"], [None] * 4)
    traces.trace_path(copy).rename(tmp_path / "train.ids.next")
    if file_is_new:
        copy.replace(path)
        assert [each for each, _ in trace_of(path)] == ["p", "q", "r", "s"]
    else:
        assert path.read_bytes() == old
        assert [each for each, _ in trace_of(path)] == [None, "a", "b", "c"]
    assert traces.traced(tmp_path) == [path]
    gone = traces.without(path, ids=["q", "b"])
    assert (gone, len(trace_of(path))) == (1, 3)
    assert not (tmp_path / "train.ids.next").exists(), "whoever writes next is done with it"


def test_reader_leaves_the_trace_of_a_write_under_way(tmp_path: Path) -> None:
    """Its new trace lies there before the file does: who reads then, sees the old ones, and takes
    nothing away from the writer."""
    path = written(tmp_path)
    stop, troubles = threading.Event(), []

    def read() -> None:
        try:
            while not stop.is_set():
                assert len(trace_of(path)) in (3, 4)
        except BaseException as trouble:  # noqa: BLE001 - shown by the assertion
            troubles.append(trouble)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        rows = 3 + number % 2
        ids = [f"{number}-{row}" for row in range(rows)]
        traces.write_traced(path, pa.table({"x": [1.0] * rows}), ids, [None] * rows)
    stop.set()
    reader.join()
    assert troubles == []
    assert [each for each, _ in trace_of(path)] == ids


def test_file_changed_by_somebody_else_is_told(tmp_path: Path) -> None:
    """Its trace does not say any more which rows are whose."""
    path = written(tmp_path)
    pq.write_table(pa.table({"x": [5.0, 6.0, 7.0, 8.0]}), path)
    with pytest.raises(IntegrityError, match="changed by another program"):
        traces.without(path, ids=["a"])
