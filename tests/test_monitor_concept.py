"""The error against the promise: rarely a false alarm, and a real rise is found."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from homeostat.records import ErrorComparison, Task
from homeostat.words import Rate
from monitor.concept import alpha_of, compare, onset


def errors(wrong: int, rows: int) -> np.ndarray:
    return np.array([1.0] * wrong + [0.0] * (rows - wrong))


def classes(
    wrong: int, rows: int, baseline: float, baseline_rows: int = 500, alpha: float = 1e-3
) -> ErrorComparison:
    return compare(
        errors(wrong, rows),
        Task.CLASSIFICATION,
        baseline=baseline,
        baseline_rows=baseline_rows,
        alpha=alpha,
        floor=0.03,
    )


@given(wrong=st.integers(0, 80), promised=st.integers(0, 60), rows=st.integers(80, 300))
def test_the_p_value_of_classes_is_fishers_exact(wrong: int, promised: int, rows: int) -> None:
    """Both sides were measured on few rows; the test knows."""
    found = classes(wrong, rows, promised / 200, baseline_rows=200)
    table = [[wrong, rows - wrong], [promised, 200 - promised]]
    assert found.p_value == pytest.approx(fisher_exact(table, alternative="greater").pvalue)


def test_a_rise_is_worse_only_when_it_is_both_sure_and_large() -> None:
    """Neither many rows nor few rows are enough alone."""
    assert classes(60, 300, 0.05).worse
    assert not classes(8, 80, 0.05).worse  # twice the promise, but by chance
    assert not classes(700, 10_000, 0.05, baseline_rows=10_000).worse  # sure, but two points
    assert not classes(0, 300, 0.05).worse


def test_a_baseline_of_few_rows_weighs_less() -> None:
    """What was promised after thirty rows was hardly promised."""
    assert classes(45, 300, 0.1, baseline_rows=30).p_value > classes(45, 300, 0.1).p_value
    assert classes(45, 300, 0.1).p_value > classes(45, 300, 0.1, baseline_rows=0).p_value


def test_false_alarms_stay_below_what_was_asked_for() -> None:
    """A thousand windows like the baseline's rows, at one in a hundred."""
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(1000):
        promised = random.binomial(300, 0.1) / 300
        now = int(random.binomial(200, 0.1))
        alarms += classes(now, 200, promised, baseline_rows=300, alpha=0.01).worse
    assert alarms <= 15


def test_numbers_compare_means_and_their_floor_is_a_share() -> None:
    """A tenth more error is worse, a hundredth more is not."""
    random = np.random.default_rng(1)
    spread = random.exponential(1.0, 5000)

    def found(factor: float) -> ErrorComparison:
        return compare(
            spread * factor / spread.mean(),
            Task.REGRESSION,
            baseline=1.0,
            baseline_rows=5000,
            alpha=0.01,
            floor=0.03,
        )

    assert found(1.1).worse
    assert found(1.1).metric == "mae"
    assert not found(1.01).worse
    assert not found(0.5).worse


def test_constant_errors_do_not_divide_by_zero() -> None:
    def found(value: float) -> ErrorComparison:
        return compare(
            np.full(50, value),
            Task.REGRESSION,
            baseline=1.0,
            baseline_rows=50,
            alpha=0.01,
            floor=0.03,
        )

    assert found(2.0).worse
    assert not found(1.0).worse


@pytest.mark.parametrize("place", [60, 200, 340])
def test_the_onset_of_errors_is_found_in_time_order(place: int) -> None:
    """Where the errors rise is where the window changes."""
    random = np.random.default_rng(place)
    row = np.concatenate([random.random(place) < 0.05, random.random(400 - place) < 0.6])
    assert abs(onset(row.astype(float)) - place) < 25


def test_there_is_no_onset_in_an_even_row_or_in_one_that_gets_better() -> None:
    random = np.random.default_rng(7)
    even = (random.random(400) < 0.3).astype(float)
    assert onset(even) == 0
    assert onset(np.sort(even)[::-1]) == 0
    assert onset(np.zeros(400)) == 0
    assert onset(np.ones(10)) == 0


def test_alpha_follows_the_budget_within_reason() -> None:
    budget = Rate(1, timedelta(days=30))
    assert alpha_of(budget, timedelta(hours=1)) == pytest.approx(1 / 720)
    assert alpha_of(budget, timedelta(seconds=1)) == 1e-5
    assert alpha_of(budget, timedelta(days=30)) == 0.05
