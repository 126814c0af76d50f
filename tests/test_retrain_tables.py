"""New rows in the old rows' types, labels in the target's, rows in the form a model takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.errors import NotReady, SettingsError
from homeostat.labels import canonical
from homeostat.records import Feature, FeatureKind, ModelSpec, Task
from homeostat.settings_of_serving import ModelSettings
from retrain.gate_job import batch_of
from retrain.tables import class_names, feature_columns, read, stack, target_values
from retrain.training_set import split_newest


def test_new_rows_take_the_old_types() -> None:
    """Logged as wide numbers and texts, they come back as what the training data holds."""
    old = pa.table(
        {
            "age": pa.array([30, 40], pa.int32()),
            "weight": pa.array([1.5, 2.5], pa.float32()),
            "colour": pa.array(["red", "blue"]).dictionary_encode(),
            "note": ["kept", "only here"],
        }
    )
    new = pa.table({"weight": [3.5], "colour": ["green"], "age": [50.0], "_time": [1]})
    both = stack([old, new], old.schema)
    assert both.schema == old.schema
    assert both.to_pylist()[2] == {"age": 50, "weight": 3.5, "colour": "green", "note": None}


def test_fractions_are_not_cut_off() -> None:
    """A whole-number column becomes one of fractions rather than lose them."""
    old = pa.table({"age": pa.array([30, 40], pa.int64())})
    both = stack([old, pa.table({"age": [50.5]})], old.schema)
    assert both["age"].to_pylist() == [30.0, 40.0, 50.5]


def test_texts_in_a_column_of_numbers_are_an_error() -> None:
    """Nothing is guessed."""
    old = pa.table({"age": pa.array([30, 40], pa.int64())})
    with pytest.raises(NotReady, match="training data has int64"):
        stack([old, pa.table({"age": ["fifty"]})], old.schema)


@pytest.mark.parametrize(
    ("labels", "type_", "classes", "expected"),
    [
        (["3", "8", "x"], pa.int64(), (), [3, 8, None]),
        (["cat", "dog", "1"], pa.int64(), ("cat", "dog"), [0, 1, 1]),
        (["true", "false", "maybe"], pa.bool_(), (), [True, False, None]),
        (["3", "cat"], pa.string(), (), ["3", "cat"]),
        ([1.5, 2.0, None], pa.float64(), (), [1.5, 2.0, None]),
        (["a"], pa.dictionary(pa.int32(), pa.string()), (), ["a"]),
    ],
)
def test_labels_become_values_of_the_target(
    labels: list[Any], type_: Any, classes: tuple[str, ...], expected: list[Any]
) -> None:
    """And null where they cannot."""
    assert target_values(pa.array(labels), type_, classes).to_pylist() == expected


@given(st.lists(st.integers(-(2**40), 2**40) | st.booleans(), max_size=5))
def test_targets_survive_the_way_through_labels(values: list[Any]) -> None:
    """A target said as a label and read back is the same target."""
    for type_, chosen in (
        (pa.int64(), [v for v in values if not isinstance(v, bool)]),
        (pa.bool_(), [v for v in values if isinstance(v, bool)]),
    ):
        labels = pa.array([canonical(v) for v in chosen], pa.string())
        assert target_values(labels, type_, ()).to_pylist() == chosen


def test_targets_that_are_places_get_their_class_names() -> None:
    """So that a test set of numbers can be compared with a model that answers in names."""
    assert class_names(pa.array([0, 1, None]), ("cat", "dog")) == ["cat", "dog", ""]
    assert class_names(pa.array([0, 1]), ("0", "1")) == ["0", "1"]
    assert class_names(pa.array(["dog"]), ("cat", "dog")) == ["dog"]


def test_files_are_read_without_what_pandas_adds(tmp_path: Path) -> None:
    """An index written by accident is no feature."""
    frame = pd.DataFrame({"a": [1, 2], "target": [0, 1]}, index=[7, 9])
    frame.to_parquet(tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet", "k").column_names == ["a", "target"]
    with pytest.raises(SettingsError, match=r"model\.training_data"):
        read(tmp_path / "absent.csv", "model.training_data")
    (tmp_path / "broken.parquet").write_text("no")
    with pytest.raises(SettingsError, match="neither Parquet nor CSV"):
        read(tmp_path / "broken.parquet", "k")


def test_features_are_all_columns_but_the_target_or_those_named() -> None:
    """A wrong name is an error that names the key."""
    columns = ("b", "a", "target")
    assert feature_columns(columns, ModelSettings(name="m")) == ("b", "a")
    assert feature_columns(columns, ModelSettings(name="m", features=("a",))) == ("a",)
    with pytest.raises(SettingsError, match=r"model\.features"):
        feature_columns(columns, ModelSettings(name="m", features=("z",)))
    with pytest.raises(SettingsError, match=r"model\.target"):
        feature_columns(columns, ModelSettings(name="m", target="y"))


def spec(*features: Feature, shape: tuple[int, ...] | None = None) -> ModelSpec:
    return ModelSpec(
        model="m",
        version="1",
        runtime="pyfunc",
        task=Task.CLASSIFICATION,
        features=features,
        tensor_shape=shape,
    )


def test_rows_take_the_form_of_the_version() -> None:
    """A matrix in the order of its features, or columns where some are categories."""
    rows = pa.table({"c": ["u", "v"], "b": [1, 2], "a": [3.0, 4.0]})
    a, b = Feature(name="a"), Feature(name="b")
    matrix = batch_of(rows, spec(a, b), ("c", "b", "a")).matrix
    assert matrix is not None
    assert matrix.tolist() == [[3.0, 1.0], [4.0, 2.0]]
    assert matrix.dtype == np.float64
    tensor = batch_of(rows, spec(Feature(name="x0"), Feature(name="x1"), shape=(2,)), ("b", "a"))
    assert tensor.matrix is not None
    assert tensor.matrix.dtype == np.float32
    assert tensor.matrix.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    mixed = batch_of(rows, spec(Feature(name="c", kind=FeatureKind.CATEGORY), b), ("c", "b"))
    assert mixed.columns == {"c": ["u", "v"], "b": [1, 2]}
    with pytest.raises(NotReady, match="lacks the columns z"):
        batch_of(rows, spec(Feature(name="z")), ("c", "b"))


@given(
    st.lists(st.integers(0, 300), max_size=400).map(sorted),
    st.floats(0.05, 0.95),
    st.integers(1, 200),
)
def test_what_the_gate_keeps_is_newer(times: list[int], share: float, least: int) -> None:
    """Never more than the rows there are; purged unless one moment holds most of them."""
    cut = split_newest(np.array(times), share, least)
    assert 0 <= cut <= len(times)
    if 0 < cut < len(times) and times[cut - 1] == times[cut]:
        assert times.index(times[cut]) < cut // 2 + 1


@pytest.mark.parametrize(
    ("rows", "share", "least", "kept"),
    [(1000, 0.3, 100, 300), (250, 0.3, 100, 100), (60, 0.3, 100, 30), (0, 0.3, 100, 0)],
)
def test_the_gate_gets_enough_rows_where_there_are(
    rows: int, share: float, least: int, kept: int
) -> None:
    """Its share, or what it needs to decide, but never more than half for that."""
    assert rows - split_newest(np.arange(rows), share, least) == kept
    assert split_newest(np.arange(200_000), 0.5, 100) == 180_000
