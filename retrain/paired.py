"""Two models' answers on the same rows, and what their paired differences can and cannot show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from homeostat.records import Task

LEVEL = 0.05  # of every one-sided test here: z > 1.645
Z = float(stats.norm.isf(LEVEL))

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one model said, row by row."""

    predictions: NDArray[Any]  # canonical text of the class, or numbers
    probabilities: NDArray[Any] | None = None  # (rows, classes)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Rows with known labels, and what the candidate and the champion said of them."""

    labels: NDArray[Any]  # canonical text, or numbers
    candidate: Answers
    champion: Answers | None
    counted: Bools | None = None  # False: newer labels contradict the row; None: all count
    slices: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # column -> value a row
    in_time_order: bool = False  # then neighbouring rows may depend on each other

    @property
    def mask(self) -> Bools:
        return np.ones(len(self.labels), bool) if self.counted is None else self.counted


@dataclass(frozen=True, kw_only=True)
class Loss:
    """How much more the candidate errs than the champion, per row; negative: it errs less."""

    rows: int
    mean: float
    low: float  # one-sided 95% bounds
    high: float
    p_worse: float  # of the hypothesis that it is no worse
    p_better: float  # of the hypothesis that it is no better


def errors(answers: Answers, labels: NDArray[Any], task: Task) -> Floats:
    """One number a row: 0 or 1 for a class, the absolute error for a number."""
    if task is Task.CLASSIFICATION:
        return np.asarray(answers.predictions != labels, dtype=np.float64)
    return np.abs(np.asarray(answers.predictions, np.float64) - np.asarray(labels, np.float64))


def compare(candidate: Floats, champion: Floats, task: Task, *, in_time_order: bool) -> Loss:
    """The paired comparison: McNemar's exact test for classes, a paired t-test for numbers.

    Rows in time order may depend on their neighbours, which makes a difference look surer than
    it is: then the standard error is taken from means of blocks where that is larger, and both
    that and the exact test must speak.
    """
    difference = candidate - champion
    rows = len(difference)
    mean = float(difference.mean()) if rows else 0.0
    error = _standard_error(difference, in_time_order)
    if rows < 2:
        return Loss(rows=rows, mean=mean, low=-np.inf, high=np.inf, p_worse=1.0, p_better=1.0)
    z = mean / error if error else 0.0
    p_worse, p_better = float(stats.t.sf(z, rows - 1)), float(stats.t.cdf(z, rows - 1))
    if task is Task.CLASSIFICATION:
        lost, won = int((difference > 0).sum()), int((difference < 0).sum())
        p_worse, p_better = (
            max(p_worse, _sign_test(lost, won)),
            max(p_better, _sign_test(won, lost)),
        )
    return Loss(
        rows=rows,
        mean=mean,
        low=mean - Z * error,
        high=mean + Z * error,
        p_worse=p_worse,
        p_better=p_better,
    )


def holm(p_values: list[float], level: float) -> list[bool]:
    """Which hypotheses fall when the chance of any false one is kept at the level."""
    rejected = [False] * len(p_values)
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[int(index)] = True
    return rejected


def calibration_error(correct: Bools, confidence: Floats, bins: int = 10) -> float:
    """How far stated confidence lies from the share that was right, over bins of equal count."""
    if not len(correct):
        return 0.0
    gap = correct.astype(np.float64) - confidence
    parts = np.array_split(gap[np.argsort(confidence, kind="stable")], bins)
    return float(sum(abs(part.sum()) for part in parts) / len(gap))


def _sign_test(for_it: int, against: int) -> float:
    """The chance of at least so many of the rows on which only one model was right."""
    return float(stats.binom.sf(for_it - 1, for_it + against, 0.5)) if for_it + against else 1.0


def _standard_error(difference: Floats, in_time_order: bool) -> float:
    rows = len(difference)
    if rows < 2:
        return 0.0
    plain = float(difference.std(ddof=1) / np.sqrt(rows))
    blocks = int(np.sqrt(rows))
    if not in_time_order or blocks < 10:
        return plain
    means = np.array([part.mean() for part in np.array_split(difference, blocks)])
    return max(plain, float(means.std(ddof=1) / np.sqrt(blocks)))
