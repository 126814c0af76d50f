"""Bodies -> rows for models of named columns, and the two ways to read them against each other."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.errors import InputError
from homeostat.records import Feature, FeatureKind, ModelSpec, Task
from serving.requests.finite import is_finite
from serving.requests.parsing import RowReader, Rows
from serving.requests.problem import Refused

MIXED = (
    Feature(name="age", integer=True),
    Feature(name="city", kind=FeatureKind.CATEGORY),
    Feature(name="income"),
)
NUMBERS = (Feature(name="age", integer=True), Feature(name="income"))
ROW = {"age": 41, "city": "Kyiv", "income": 12.5}


def reader(features: tuple[Feature, ...], **spec: Any) -> RowReader:
    return RowReader(
        ModelSpec(
            model="m",
            version="1",
            runtime="pyfunc",
            task=Task.CLASSIFICATION,
            features=features,
            **spec,
        )
    )


def read(features: tuple[Feature, ...], rows: object, **spec: Any) -> Rows:
    return reader(features, **spec).read(json.dumps({"rows": rows}).encode())


@pytest.mark.parametrize(
    "rows",
    [[ROW, ROW], [list(ROW.values())] * 2, [ROW, list(ROW.values())], [{**ROW, "age": 41.0}] * 2],
)
def test_numbers_and_strings_become_columns(rows: list[Any]) -> None:
    """By name or in order, whole numbers as such."""
    found = read(MIXED, rows)
    assert found.columns is not None
    columns = {name: list(values) for name, values in found.columns.items()}
    assert columns == {"age": [41, 41], "city": ["Kyiv"] * 2, "income": [12.5] * 2}
    assert all(type(age) is int for age in columns["age"])


def test_only_numbers_become_a_matrix_of_doubles() -> None:
    """Columns keep the digits that float32 would lose."""
    found = read(NUMBERS, [[16_777_217, 0.1], {"income": 1e39, "age": 2}])
    assert found.matrix is not None
    assert found.matrix.dtype == np.float64
    assert found.matrix.tolist() == [[16_777_217.0, 0.1], [2.0, 1e39]]


@pytest.mark.parametrize(
    ("features", "row", "field"),
    [
        (MIXED, {**ROW, "age": 41.5}, "age"),
        (MIXED, {**ROW, "age": 1e30}, "age"),
        (MIXED, {**ROW, "age": "41"}, "age"),
        (MIXED, {**ROW, "city": 3}, "city"),
        (MIXED, {**ROW, "city": None}, "city"),
        (MIXED, {**ROW, "income": True}, "income"),
        (MIXED, {"age": 1, "city": "a"}, "income"),
        (MIXED, {**ROW, "extra": 1}, "extra"),
        (MIXED, [1, "a"], None),
        (MIXED, [[1, "a", 2.0]], None),
        (NUMBERS, [1.5, 2.0], "age"),
        (NUMBERS, [2.0**63, 2.0], "age"),
        (NUMBERS, {"age": 0.5, "income": 1}, "age"),
    ],
)
def test_a_wrong_value_is_named(
    features: tuple[Feature, ...], row: object, field: str | None
) -> None:
    """Also when sound rows stand before it."""
    sound = ROW if features is MIXED else {"age": 1, "income": 2.0}
    with pytest.raises(InputError) as caught:
        read(features, [sound, row])
    assert (caught.value.row, caught.value.field) == (1, field)


def test_whole_numbers_of_a_tensor_keep_their_digits() -> None:
    """Token ids beyond 2**24 would collide as float32."""
    features = tuple(Feature(name=f"t{i}", integer=True) for i in range(2))
    found = read(features, [[16_777_217, 3]], tensor_shape=(2,), tensor_dtype="int64")
    assert found.matrix is not None
    assert found.matrix.tolist() == [[16_777_217.0, 3.0]]


VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70),
    st.text(max_size=3),
    st.none(),
    st.booleans(),
)
ROWS = st.one_of(
    st.fixed_dictionaries({"age": VALUES, "city": VALUES, "income": VALUES}),
    st.fixed_dictionaries({"age": st.integers(), "city": st.text(), "income": st.floats()}),
    st.tuples(st.integers(), st.text(), st.floats()),
    st.lists(VALUES, max_size=4),
)


@given(rows=st.lists(ROWS, max_size=4))
def test_reading_ends_in_rows_or_in_a_named_error(rows: list[Any]) -> None:
    """Whatever arrives: rows that fit the model, or an error for the caller."""
    found, problem = None, None
    try:
        found = read(MIXED, rows)
    except (InputError, Refused) as error:
        problem = error
    if found is None:
        row = getattr(problem, "row", None)
        assert row is None or row < len(rows)
        return
    assert found.columns is not None
    assert found.count == len(rows)
    for feature in MIXED:
        values = found.columns[feature.name]
        assert len(values) == len(rows)
        kind = str if feature.kind is FeatureKind.CATEGORY else int | float
        assert all(isinstance(value, kind) for value in values)


@given(
    rows=st.lists(
        st.tuples(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False)),
        min_size=1,
        max_size=5,
    )
)
def test_the_fast_and_the_slow_way_agree(rows: list[tuple[int, float]]) -> None:
    """One row written by name among lists takes the slow way and changes nothing."""
    first, *others = rows
    mixed = [{"age": first[0], "income": first[1]}, *others, list(first)]
    fast, slow = read(NUMBERS, [*rows, first]), read(NUMBERS, mixed)
    assert fast.matrix is not None
    assert slow.matrix is not None
    assert fast.matrix.tolist() == slow.matrix.tolist()


@pytest.mark.parametrize(
    ("features", "rows"),
    [
        (NUMBERS, [[1, 2.0], [3, 4.0]]),
        (MIXED, [ROW, ROW]),
        (MIXED, [ROW, list(ROW.values())]),  # read the slow way
    ],
)
@pytest.mark.parametrize("keys", [None, ["ada", None], [None, None], ["same", "same"]])
def test_keys_stay_with_their_rows(
    features: tuple[Feature, ...], rows: list[Any], keys: list[str | None] | None
) -> None:
    """One a row, any of them null or there twice; without keys there is nothing to carry."""
    found = reader(features).read(json.dumps({"rows": rows, "keys": keys}).encode())
    assert (found.keys, found.ids) == (keys, None)


@pytest.mark.parametrize(
    ("keys", "row"),
    [
        (["a"], None),
        (["a", ""], 1),
        (["a", 5], 1),
        (["x" * 129, None], 0),
        ("ab", None),
        ({"a": "b"}, None),
    ],
)
def test_a_wrong_key_is_named(keys: object, row: int | None) -> None:
    """With its row, like a wrong value."""
    body = json.dumps({"rows": [[1, 2.0], [3, 4.0]], "keys": keys}).encode()
    with pytest.raises(InputError) as caught:
        reader(NUMBERS).read(body)
    assert (caught.value.row, caught.value.field) == (row, "keys")


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=9),
    st.sampled_from([np.float32, np.float64]),
)
def test_finite_is_what_every_number_is(numbers: list[float], kind: type[np.floating[Any]]) -> None:
    """Also of numbers whose squares are infinite, or nothing at all."""
    array = np.array([numbers], kind)
    assert is_finite(array) == bool(np.isfinite(array).all())
