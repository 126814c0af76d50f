"""The distances are Evidently's and scipy's; the thresholds know how large the window is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from homeostat.records import Feature, FeatureKind, Score
from monitor.frames import generator, lumped, sampled, text, typed
from monitor.scores import PRESENCE, drift_share, scores

NUMBER = Feature(name="x")
CATEGORY = Feature(name="x", kind=FeatureKind.CATEGORY)
FINITE = st.floats(-1e6, 1e6, width=32)


def one(reference: object, current: object, feature: Feature = NUMBER) -> tuple[Score, ...]:
    before, after = (
        typed(pd.DataFrame({"x": values}), [feature], "a table") for values in (reference, current)
    )
    return scores(before, after, [feature], generator("seed"))


@settings(deadline=None, max_examples=60)
@given(
    arrays(np.float64, st.integers(2, 60), elements=FINITE),
    arrays(np.float64, st.integers(2, 60), elements=FINITE),
)
def test_numbers_are_scipys_wasserstein_over_the_references_deviation(
    reference: np.ndarray, current: np.ndarray
) -> None:
    """The score is the exact distance, in units of the reference's standard deviation."""
    found = one(reference, current)
    if not found:
        assert len(np.unique(np.concatenate([reference, current]))) == 1
        return
    expected = wasserstein_distance(reference, current) / max(reference.std(), 0.001)
    assert found[0].value == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from("abcd"), min_size=2, max_size=60),
    st.lists(st.sampled_from("abcd"), min_size=2, max_size=60),
)
def test_categories_are_scipys_jensen_shannon(reference: list[str], current: list[str]) -> None:
    """The score is the distance of the shares of the categories."""
    found = one(reference, current, CATEGORY)
    if not found:
        assert len(set(reference) | set(current)) == 1
        return
    shares = [[side.count(name) / len(side) for name in "abcd"] for side in (reference, current)]
    assert found[0].value == pytest.approx(jensenshannon(*shares), abs=1e-7)


def test_no_alarm_where_nothing_changed() -> None:
    """Fifty pairs from one distribution, at several sizes: never half of the columns drift."""
    features = [Feature(name=f"x{i}") for i in range(12)]
    names = [feature.name for feature in features]
    shares = []
    for run in range(50):
        random = np.random.default_rng(run)
        rows = [50, 150, 500][run % 3]
        before, after = (
            pd.DataFrame(random.gamma(1.0, size=(count, 12)), columns=names)
            for count in (1000, rows)
        )
        share = drift_share(scores(before, after, features, generator(str(run))), names)
        assert share is not None
        shares.append(share)
    assert max(shares) < 0.5
    assert np.mean(shares) < 0.03


@pytest.mark.parametrize("rows", [150, 1000])
def test_a_shift_of_half_a_deviation_is_found_at_every_size(rows: int) -> None:
    """The threshold that follows the size of the window does not hide what matters."""
    random = np.random.default_rng(3)
    (score,) = one(random.normal(size=1000), random.normal(0.5, size=rows))
    assert score.drifted


def test_a_small_shift_in_many_rows_stays_below_the_effect_floor() -> None:
    """What is certain but too small to matter is no drift."""
    random = np.random.default_rng(4)
    (score,) = one(random.normal(size=20_000), random.normal(0.05, size=20_000))
    assert not score.drifted
    assert score.threshold == 0.1


def test_a_constant_column_that_moved_is_drift_and_one_that_did_not_is_left_out() -> None:
    """Nothing varies in the reference: any lasting change is a change."""
    assert one([5.0] * 100, [5.0] * 100) == ()
    (score,) = one([5.0] * 100, [7.0] * 100)
    assert score.drifted


def test_one_odd_row_in_a_constant_column_is_no_drift() -> None:
    """Evidently divides by 0.001 here; the shuffles show that one row proves nothing."""
    (score,) = one([0.0] * 1000, [0.0] * 299 + [8.0])
    assert score.value > 1
    assert not score.drifted


def test_a_column_that_is_empty_on_one_side_is_told_apart() -> None:
    """No distance says how far nothing is from something."""
    (score,) = one([1.0, 2.0, 3.0], [None, None, None])
    assert (score.method, score.drifted) == (PRESENCE, True)
    assert one([None, None], [None, None]) == ()


def test_missing_and_infinite_values_do_not_count() -> None:
    """A distance is one between the values that are there."""
    (clean,) = one([1.0, 2.0, 3.0], [2.0, 4.0])
    (dirty,) = one([1.0, np.nan, 2.0, 3.0], [2.0, np.inf, 4.0])
    assert dirty.value == pytest.approx(clean.value)


def test_rare_categories_of_very_many_are_lumped_on_both_sides() -> None:
    """Thousands of identifiers do not drift because others of them were drawn."""
    random = np.random.default_rng(5)
    reference, current = (
        pd.DataFrame({"x": random.integers(0, 10_000, rows).astype(str)}) for rows in (1000, 1000)
    )
    reference, current = lumped(reference, current, [CATEGORY])
    assert reference["x"].nunique() <= 50
    (score,) = scores(reference, current, [CATEGORY], generator("seed"))
    assert not score.drifted


def test_the_same_check_draws_the_same_rows_in_their_order() -> None:
    """A check that is run again says the same."""
    frame = pd.DataFrame({"x": range(1000)})
    first, second = (sampled(frame, 50, generator("a check")) for _ in range(2))
    assert first["x"].tolist() == second["x"].tolist() == sorted(first["x"])
    assert len(first) == 50


def test_text_of_categories_is_canonical() -> None:
    """A class that was read back as a float is the same class."""
    assert text(pd.Series([3, 3.0, None, "3", True], dtype=object)).tolist() == [
        "3",
        "3",
        None,
        "3",
        "true",
    ]
