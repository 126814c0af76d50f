"""What models of many flavors answer, read inside a worker: names, values, probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from homeostat.errors import ModelError
from homeostat.model_runtime import wire
from homeostat.model_runtime.pyfunc_answers import Answers
from homeostat.records import Task

ROWS = np.array([[0.0], [1.0], [2.0]])


def setup(
    *,
    task: Task = Task.CLASSIFICATION,
    classes: tuple[str, ...] = (),
    embedding: str | None = None,
) -> wire.Setup:
    return wire.Setup(
        folder="",
        task=task.value,
        tensor_shape=(1,),
        tensor_dtype="float64",
        classes=classes,
        embedding=embedding,
        threads=1,
        warm_up_rows=2,
    )


def fitted(labels: list[Any]) -> LogisticRegression:
    return LogisticRegression(C=1e6).fit(ROWS, labels)


@pytest.mark.parametrize(
    ("labels", "given", "expected"),
    [
        ([0, 1, 2], (), ("0", "1", "2")),
        ([0, 1, 2], ("small", "middle", "large"), ("small", "middle", "large")),
        (["a", "b", "c"], ("c", "b", "a"), ("a", "b", "c")),
        ([False, True, True], (), ("false", "true")),
        ([0.0, 1.0, 2.0], (), ("0", "1", "2")),
    ],
)
def test_class_names(labels: list[Any], given: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """The settings' names replace the model's in its order; the same names in another order do not
    swap them."""
    model = fitted(labels)
    answers = Answers(setup(classes=given), model.predict, model)
    reply = answers.reply(ROWS, 3)
    assert answers.names == expected
    assert reply.probabilities is not None
    probabilities = reply.probabilities.read()
    assert probabilities.shape == (3, len(expected))
    assert reply.labels == [expected[i] for i in probabilities.argmax(axis=1)]


def test_too_few_names_are_an_error() -> None:
    """Names that do not match the number of classes would shift every label."""
    model = fitted([0, 1, 2])
    with pytest.raises(ModelError, match=r"3 classes \(0, 1, 2\), but 2 are named"):
        Answers(setup(classes=("a", "b")), model.predict, model)


def test_an_embedding_of_a_model_that_is_no_network() -> None:
    """A module's name means nothing to scikit-learn, and the error says which key to remove."""
    model = fitted([0, 1, 2])
    with pytest.raises(ModelError, match="remove the key"):
        Answers(setup(embedding="encoder"), model.predict, model)


@pytest.mark.parametrize("form", [list, np.asarray, pd.Series, lambda v: pd.DataFrame({"y": v})])
def test_values_in_every_form(form: Callable[[Any], Any]) -> None:
    """A regression's lists, arrays, series and frames of one column are the same numbers."""
    model = LinearRegression().fit(ROWS, [1.0, 3.0, 5.0])
    answers = Answers(setup(task=Task.REGRESSION), lambda x: form(model.predict(x)), None)
    reply = answers.reply(ROWS, 3)
    assert reply.values is not None
    np.testing.assert_allclose(reply.values.read(), [1.0, 3.0, 5.0])


def test_scores_of_a_model_without_classes() -> None:
    """Two or more columns are scores of the classes, which the settings name."""
    scores = np.array([[2.0, -1.0], [0.0, 3.0]])
    answers = Answers(setup(classes=("no", "yes")), lambda x: pd.DataFrame(scores), None)
    reply = answers.reply(ROWS[:2], 2)
    assert reply.labels == ["no", "yes"]
    assert answers.names == ("no", "yes")


@pytest.mark.parametrize(
    ("answer", "said"), [([1, 2], "2 outputs for 3 rows"), ({"y": [1, 2, 3]}, "several outputs: y")]
)
def test_answers_that_cannot_be_read(answer: Any, said: str) -> None:
    """An answer that is not one output a row is refused."""
    with pytest.raises(ModelError, match=said):
        Answers(setup(), lambda x: answer, None).reply(ROWS, 3)
