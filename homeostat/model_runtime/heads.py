"""From a network's raw numbers to predictions: names of classes with probabilities, or values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat.errors import ModelError
from homeostat.records import Task

# Sums of float16 probabilities over many classes are off by about this much.
_SUM_TOLERANCE = 1e-2
STEPS = ("softmax", "sigmoid", "none")  # names of post-processing that travel with a version


@dataclass(frozen=True, kw_only=True)
class Head:
    """How to read a model's outputs; decided once, on the outputs of the warm-up."""

    task: Task
    classes: tuple[str, ...] = ()
    normalised: bool = False  # the outputs are probabilities already
    sigmoid: bool = False  # each class by itself; else a softmax over all

    def read(self, raw: NDArray[Any]) -> tuple[list[str] | list[float], NDArray[np.float32] | None]:
        """Predictions and, for classification, probabilities of (rows, outputs)."""
        if self.task is Task.REGRESSION:
            values: list[float] = raw.reshape(len(raw)).astype(np.float64).tolist()
            return values, None
        probabilities = self.probabilities(raw)
        classes = self.classes
        return [classes[i] for i in probabilities.argmax(axis=1).tolist()], probabilities

    def probabilities(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        scores = raw.astype(np.float32, copy=False)
        if scores.ndim == 1 or scores.shape[1] == 1:
            flat = scores.reshape(len(scores))
            second = flat if self.normalised else 1 / (1 + np.exp(-flat))
            return np.stack([1 - second, second], axis=1)
        if self.normalised:
            return scores
        if self.sigmoid:
            each: NDArray[np.float32] = np.reciprocal(1 + np.exp(-scores))
            return each
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        result: NDArray[np.float32] = exponentials / exponentials.sum(axis=1, keepdims=True)
        return result


def head_for(
    task: Task, sample: NDArray[Any], classes: tuple[str, ...], where: str, step: str = ""
) -> Head:
    """The head that fits a warm-up's outputs; ModelError when none does. `step` is how the version
    says its outputs become probabilities; empty, the outputs themselves show it."""
    if step and step not in STEPS:
        raise ModelError(
            f'{where} names the post-processing "{step}"; known are {", ".join(STEPS)}'
        )
    width = 1 if sample.ndim == 1 else sample.shape[1]
    if sample.ndim > 2:
        raise ModelError(
            f"{where} gives outputs of shape {tuple(sample.shape[1:])} a row; one number a row "
            "(regression) or one number a class is needed"
        )
    if task is Task.REGRESSION:
        if step not in ("", "none"):
            raise ModelError(f'{where} is a regression, and names the post-processing "{step}"')
        if width != 1:
            raise ModelError(
                f"{where} gives {width} numbers a row, a regression model gives one; "
                'is it [model] task = "classification"?'
            )
        return Head(task=task)
    count = max(width, 2)
    if classes and len(classes) != count:
        raise ModelError(
            f"{where} has {count} classes, but {len(classes)} are named: {', '.join(classes)}; "
            "correct [model] classes or the version's metadata"
        )
    names = classes or tuple(str(i) for i in range(count))
    if step == "softmax" and width == 1:
        raise ModelError(
            f'{where} gives one number a row, whose softmax is always 1: its step is "sigmoid"'
        )
    normalised = step == "none" if step else _are_probabilities(sample, width)
    return Head(task=task, classes=names, normalised=normalised, sigmoid=step == "sigmoid")


def _are_probabilities(sample: NDArray[Any], width: int) -> bool:
    if not len(sample) or not np.isfinite(sample).all() or sample.min() < 0 or sample.max() > 1.001:
        return False
    return width == 1 or bool(np.allclose(sample.sum(axis=1), 1, atol=_SUM_TOLERANCE))
