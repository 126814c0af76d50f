"""The error on labelled rows against what the version promised, and since when it is higher."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from homeostat.records import ErrorComparison, Task
from homeostat.words import Rate

Errors = NDArray[np.float64]  # a labelled row each: 0 or 1 for classes, else the absolute error

MOST_ALPHA = 0.05
# Checks a few seconds apart look at nearly the same rows: they are not as many trials as they are
# checks, and a smaller alpha would only delay the alarm.
LEAST_ALPHA = 1e-5
SHORTEST_RISE = 20  # labelled rows since the onset


def alpha_of(false_alarms: Rate, every: timedelta) -> float:
    """The chance of a false alarm one check may have."""
    return min(MOST_ALPHA, max(LEAST_ALPHA, false_alarms.probability(every)))


def compare(
    errors: Errors,
    task: Task,
    *,
    baseline: float,
    baseline_rows: int,
    alpha: float,
    floor: float,
) -> ErrorComparison:
    """Whether the error rose: significantly, one-sided, and by more than `floor`.

    The baseline was measured on so many rows and has sampling noise of its own; with no rows it is
    taken as exact. Classes: Fisher's exact test of two shares. Numbers: Welch's test of two means,
    the baseline's spread taken to be the window's; there the floor is a share of the baseline.
    """
    current = float(errors.mean())
    if task is Task.REGRESSION:
        p_value = _mean_is_higher(errors, baseline, baseline_rows)
        least = baseline * (1 + floor)
    else:
        p_value = _share_is_higher(int(errors.sum()), len(errors), baseline, baseline_rows)
        least = baseline + floor
    return ErrorComparison(
        metric="mae" if task is Task.REGRESSION else "error_rate",
        baseline=baseline,
        current=current,
        labelled=len(errors),
        p_value=p_value,
        worse=p_value < alpha and current > least,
    )


def _share_is_higher(wrong: int, rows: int, baseline: float, baseline_rows: int) -> float:
    from scipy.stats import binom, hypergeom

    if baseline_rows == 0:
        return float(binom.sf(wrong - 1, rows, baseline))
    expected = round(baseline * baseline_rows)
    return float(hypergeom.sf(wrong - 1, rows + baseline_rows, wrong + expected, rows))


def _mean_is_higher(errors: Errors, baseline: float, baseline_rows: int) -> float:
    from scipy.stats import t

    rows = len(errors)
    spread = float(errors.std(ddof=1)) if rows > 1 else 0.0
    if spread == 0:
        return 0.0 if errors.mean() > baseline else 1.0
    noise = spread * math.sqrt(1 / rows + (1 / baseline_rows if baseline_rows else 0.0))
    return float(t.sf((errors.mean() - baseline) / noise, df=rows - 1))


def onset(errors: Errors) -> int:
    """The place, in time order, from which the errors are higher: the most likely single step.

    0 when they are not higher at the end than before: then the window is all of one kind.
    """
    rows = len(errors)
    if rows < 2 * SHORTEST_RISE:
        return 0
    before = np.arange(SHORTEST_RISE, rows - SHORTEST_RISE + 1)
    sums = np.concatenate([[0.0], np.cumsum(errors)])
    after = rows - before
    rise = (sums[-1] - sums[before]) / after - sums[before] / before
    evidence = rise * np.sqrt(before * after / rows)
    best = int(np.argmax(evidence))
    spread = float(errors.std())
    # Below this a step is what chance makes of an even row of errors.
    return int(before[best]) if spread > 0 and evidence[best] > 3 * spread else 0
