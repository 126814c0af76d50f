"""What a batch is written as depends on the batch alone, not on those that came before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_kit import column_rows, tensor_rows
from msgspec.structs import replace

from homeostat.errors import InputError
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.encoding.encoder import PredictionEncoder
from homeostat.journal.encoding.recording import Recording
from homeostat.records import Task

IDS = st.one_of(st.just("a" * 36), st.sampled_from(["visit-1", "visit-22", "", "straße", "\ud800"]))
SAID = st.sampled_from(["7", "cat", "horse", "été"])


@st.composite
def batches(draw: st.DrawFn, task: Task) -> PredictionBatch:
    """Of few sizes and versions, so that they repeat."""
    rows = draw(st.integers(1, 5))
    widths = st.sampled_from([None, 0, 2, 3])
    numbers = draw(st.integers(0, 1000))

    def matrix(width: int | None, dtype: str) -> Any:
        if width is None:
            return None
        return (np.arange(rows * width, dtype=dtype) + numbers).reshape(rows, width)

    ids = draw(st.lists(IDS, min_size=rows, max_size=rows))
    said = SAID if task is Task.CLASSIFICATION else st.floats(width=32)
    more: dict[str, Any] = {
        "version": draw(st.sampled_from(["1", "2"])),
        "predictions": draw(st.lists(said, min_size=rows, max_size=rows)),
    }
    if draw(st.integers(0, 3)) == 0:
        more["keys"] = draw(st.lists(st.sampled_from([None, "k"]), min_size=rows, max_size=rows))
    if draw(st.integers(0, 4)) == 0:
        return column_rows(ids, {"x": [1.5] * rows}, **more)
    features = draw(st.sampled_from([("p0", "p1", "p2"), ("a", "b", "c")]))
    found = tensor_rows(
        ids,
        features=features,
        matrix=matrix(3, draw(st.sampled_from(["<f4", "<f8"]))),
        probabilities=matrix(draw(widths), "<f4"),
        embedding=matrix(draw(widths), "<f4"),
        cached=draw(st.booleans()),
        **more,
    )
    return replace(found, tensor=draw(st.booleans()))


@pytest.mark.parametrize("task", Task)
@given(data=st.data(), sample=st.sampled_from([1.0, 0.5]))
def test_a_batch_is_written_as_by_an_encoder_that_saw_no_other(
    task: Task, data: st.DataObject, sample: float
) -> None:
    """Byte for byte, under the same schema."""
    recording = Recording(sample=sample)
    seasoned = PredictionEncoder(task, recording)
    given_batches = data.draw(st.lists(batches(task), max_size=12))
    for batch in [*given_batches, *given_batches]:
        found = seasoned.encode(batch)
        expected = PredictionEncoder(task, recording).encode(batch)
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            assert (found.data, found.rows) == (expected.data, expected.rows)
            assert found.layout.start == expected.layout.start


@pytest.mark.parametrize(
    "wrong",
    [
        {"predictions": ["7"]},
        {"predictions": ["7", "7", "7"]},
        {"predictions": [7, 7]},
        {"matrix": np.zeros((3, 3), np.float32)},
        {"embedding": np.zeros((1, 4), np.float32)},
        {"probabilities": np.zeros(2, np.float32), "embedding": np.zeros((4, 1), np.float32)},
    ],
)
def test_a_batch_that_does_not_fit_together_is_refused_after_good_ones_too(
    wrong: dict[str, Any],
) -> None:
    """A column that is too short would take its values from the next one."""
    encoder = PredictionEncoder(Task.CLASSIFICATION, Recording())
    for _ in range(2):
        assert encoder.encode(tensor_rows(["a", "b"])) is not None
    with pytest.raises(InputError, match="cannot be logged"):
        encoder.encode(tensor_rows(["a", "b"], **wrong))
