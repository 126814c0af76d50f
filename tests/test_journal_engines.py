"""The log in other engines: what DuckDB and Polars read is what was written, with no word of ours.

The lines that read are those of docs: a user copies them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow.fs
import pytest
from deltalake import DeltaTable
from journal_kit import NOON, Columns, at, column_rows, label, open_writer, tensor_rows
from object_store_kit import BUCKET, object_store

from homeostat.records import Label

EXPECTED = [
    ("a", "1", 1.0, "Bern", None, "yes", 0.0),
    ("b", "1", None, None, None, None, 0.0),
    ("c", "2", 2.0, "Rom", 5.0, "no", 86_400.0),
    ("d", "2", 3.0, "Ulm", None, None, 86_400.0),
]
SQL = """
    SELECT prediction_id, version, input_x, input_city, input_z, l.value,
           epoch(p.time - TIMESTAMPTZ '2026-11-20 12:00:00+00')
    FROM predictions p LEFT JOIN (
        SELECT prediction_id, arg_max(value, (time, received, ordinal)) AS value
        FROM labels WHERE name = 'label' GROUP BY prediction_id
    ) l USING (prediction_id)
    ORDER BY prediction_id
"""


def write(folder: Path, **changes: Any) -> None:
    """Two days; on the second a version with one more feature; a label that was corrected."""
    writer = open_writer(folder, **changes)
    writer.append(column_rows(["a", "b"], {"x": [1.0, None], "city": ["Bern", None]}))
    writer.flush()
    columns: Columns = {"x": [2.0, 3.0], "city": ["Rom", "Ulm"], "z": [5.0, None]}
    writer.append(column_rows(["c", "d"], columns, at(86_400), version="2"))
    writer.label(
        [label("a", "no", at(1)), Label(prediction_id="b", value="9", name="x", time=NOON)]
    )
    writer.flush()
    writer.label([label("a", "yes", at(2)), label("c", "no", at(3))])
    writer.close()


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("engines")
    write(folder)
    return str(folder / "journal" / "digits")


def by_polars(url: str) -> list[tuple[Any, ...]]:
    predictions = polars.scan_delta(f"{url}/predictions")
    labels = (
        polars.scan_delta(f"{url}/labels")
        .filter(polars.col("name") == "label")
        .sort("time", "received", "ordinal")
        .group_by("prediction_id", maintain_order=True)
        .last()
    )
    after_noon = (polars.col("time") - NOON).dt.total_seconds().cast(float)
    return (
        predictions.join(labels.select("prediction_id", "value"), on="prediction_id", how="left")
        .sort("prediction_id")
        .select("prediction_id", "version", "input_x", "input_city", "input_z", "value", after_noon)
        .collect()
        .rows()
    )


def test_polars_reads_the_tables(journal: str) -> None:
    """Lazily, over two schemas and with nulls, and the latest label joined by its own means."""
    assert by_polars(journal) == EXPECTED
    frame = polars.read_delta(f"{journal}/predictions")
    assert frame.filter(date="2026-11-21")["prediction_id"].sort().to_list() == ["c", "d"]
    assert frame["model"].unique().to_list() == ["digits"]
    assert frame.schema["time"] == polars.Datetime("us", "UTC")


def test_duckdb_reads_the_tables_through_arrow(journal: str) -> None:
    """The whole of the table, by its log: what a compaction replaced would not be read twice."""
    found = duckdb.connect()
    for name in ("predictions", "labels"):
        folder = f"{journal}/{name}"
        files = pyarrow.fs.SubTreeFileSystem(folder, pyarrow.fs.LocalFileSystem())
        found.register(name, DeltaTable(folder).to_pyarrow_dataset(filesystem=files))
    assert found.sql(SQL).fetchall() == EXPECTED


def test_duckdb_reads_the_parquet_files_themselves(journal: str) -> None:
    """Those the Delta log names, with the partitions from their folders."""
    found = duckdb.connect()
    for name in ("predictions", "labels"):
        files = DeltaTable(f"{journal}/{name}").file_uris()
        found.read_parquet(files, hive_partitioning=True, union_by_name=True).create_view(name)
    assert found.sql(SQL).fetchall() == EXPECTED
    days = found.sql("SELECT DISTINCT model, date::VARCHAR FROM predictions ORDER BY date")
    assert days.fetchall() == [("digits", "2026-11-20"), ("digits", "2026-11-21")]


def test_vectors_are_lists(tmp_path: Path) -> None:
    """A tensor's elements, probabilities and embedding, in both."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["t"]))
    writer.close()
    folder = str(tmp_path / "journal" / "digits" / "predictions")
    columns = ["input", "probabilities", "embedding"]
    expected = ([0.5, 1.5, 2.5], [0.25, 0.75], [0.0, 1.0, 2.0, 3.0])
    assert polars.read_delta(folder).select(columns).row(0) == expected
    files = DeltaTable(folder).file_uris()
    assert duckdb.read_parquet(files).select(*columns).fetchall() == [expected]


def test_the_same_in_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By URL, with the store's standard variables."""
    with object_store() as store:
        for name, value in store.environ.items():
            monkeypatch.setenv(name, value)
        write(tmp_path, url=f"s3://{BUCKET}/logs")
        assert by_polars(f"s3://{BUCKET}/logs/digits") == EXPECTED
        found = duckdb.connect()
        for name in ("predictions", "labels"):
            url = f"s3://{BUCKET}/logs/digits/{name}"
            bucket, path = pyarrow.fs.FileSystem.from_uri(url)
            files = pyarrow.fs.SubTreeFileSystem(path, bucket)
            found.register(name, DeltaTable(url).to_pyarrow_dataset(filesystem=files))
        assert found.sql(SQL).fetchall() == EXPECTED
