"""Raw outputs -> predictions and probabilities, as laws over any numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from homeostat.errors import ModelError
from homeostat.model_runtime import wire
from homeostat.model_runtime.heads import head_for
from homeostat.records import Task

CLASSIFICATION = Task.CLASSIFICATION
logits = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=9),
    elements=st.floats(-80, 80, width=32),
)


@given(raw=logits)
def test_probabilities_are_probabilities(raw: np.ndarray) -> None:
    """Whatever the numbers, each row sums to one, and the prediction is its likeliest class."""
    classes = tuple(f"class {i}" for i in range(raw.shape[1]))
    predictions, probabilities = head_for(CLASSIFICATION, raw, classes, "it").read(raw)
    assert probabilities is not None
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=2e-2)
    assert predictions == [classes[i] for i in probabilities.argmax(axis=1)]


@given(raw=logits)
def test_reading_probabilities_changes_nothing(raw: np.ndarray) -> None:
    """A model that ends in a softmax is read as it answers, not turned through another one."""
    _, once = head_for(CLASSIFICATION, raw * 10 - 3, (), "it").read(raw * 10 - 3)
    assert once is not None
    _, twice = head_for(CLASSIFICATION, once, (), "it").read(once)
    np.testing.assert_array_equal(once, twice)


@given(values=arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e6, 1e6)))
def test_a_column_of_values_is_the_values(values: np.ndarray) -> None:
    """Regression outputs of shape (n,) and (n, 1) are the same plain floats."""
    for raw in (values, values[:, None]):
        predictions, probabilities = head_for(Task.REGRESSION, raw, (), "it").read(raw)
        assert predictions == values.tolist()
        assert probabilities is None


@pytest.mark.parametrize(
    ("task", "shape", "classes", "said"),
    [
        (Task.REGRESSION, (4, 3), (), "3 numbers a row"),
        (CLASSIFICATION, (4, 3, 2), (), r"shape \(3, 2\)"),
        (CLASSIFICATION, (4, 3), ("a", "b"), "3 classes, but 2"),
        (CLASSIFICATION, (4,), ("a", "b", "c"), "2 classes, but 3"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(
    task: Task, shape: tuple[int, ...], classes: tuple[str, ...], said: str
) -> None:
    """The error says how many there are and which setting to correct."""
    with pytest.raises(ModelError, match=said):
        head_for(task, np.full(shape, 2.0), classes, "it")


@given(
    array=arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8]),
        array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5),
    )
)
def test_an_array_survives_the_wire(array: np.ndarray) -> None:
    """What a worker gets is what was sent, type, shape and bits."""
    read = wire.Array.of(array).read()
    assert read.dtype == array.dtype
    assert read.shape == array.shape
    assert read.tobytes() == array.tobytes()
