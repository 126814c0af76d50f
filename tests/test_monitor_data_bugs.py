"""What cannot be right is found; what merely moved is not called a bug."""

from __future__ import annotations

from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeostat.records import Feature, FeatureKind
from monitor.data_bugs import Findings, find

AGE = Feature(name="age")
CITY = Feature(name="city", kind=FeatureKind.CATEGORY)
FEATURES = (AGE, CITY)


def people(rows: int, seed: int = 0, shift: float = 0.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": random.uniform(20, 60, rows) + shift,
            "city": random.choice(["Bern", "Rome", "Oslo"], rows).astype(object),
        }
    )


def bugs_in(current: pd.DataFrame, reference: pd.DataFrame | None = None) -> Findings:
    known = people(1000) if reference is None else reference
    features = [f for f in FEATURES if f.name in known]
    return find(known, current, features, bug_share=0.005, range_slack=3.0)


@settings(deadline=None, max_examples=30)
@given(
    places=st.sets(st.integers(0, 399), min_size=5, max_size=200),
    factor=st.sampled_from([100.0, -100.0]),
)
def test_values_of_a_wrong_unit_are_found_and_only_their_rows(
    places: set[int], factor: float
) -> None:
    """A unit a hundred times too large leaves the range; the bad rows are exactly those."""
    current = people(400, seed=1)
    wrong = sorted(places)
    current.loc[wrong, "age"] *= factor
    findings = bugs_in(current)
    assert [(bug.column, bug.problem, bug.rows) for bug in findings.bugs] == [
        ("age", "out_of_range", len(wrong))
    ]
    assert np.flatnonzero(findings.bad).tolist() == wrong
    assert "reference 20" in findings.bugs[0].detail


@settings(deadline=None, max_examples=20)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(random: Random) -> None:
    """Bugs are judged row by row."""
    current = people(300, seed=2)
    current.loc[:20, "age"] = 1e6
    current.loc[40:60, "city"] = "BERN"
    current.loc[80:100, "age"] = np.nan
    order = list(range(300))
    random.shuffle(order)
    straight, mixed = bugs_in(current), bugs_in(current.iloc[order])
    assert mixed.bugs == straight.bugs
    assert mixed.bad.tolist() == straight.bad[order].tolist()
    assert {bug.problem for bug in straight.bugs} == {"out_of_range", "unseen_category", "missing"}


@pytest.mark.parametrize("shift", [0.0, 20.0, 40.0, -40.0, 80.0])
def test_a_shift_of_one_or_two_ranges_is_drift_and_no_bug(shift: float) -> None:
    """Drift stays within reach of what was seen."""
    assert bugs_in(people(400, seed=3, shift=shift)).bugs == ()


def test_a_freak_is_no_bug() -> None:
    """One impossible row of four hundred is left where it is."""
    current = people(400, seed=4)
    current.loc[7, "age"] = 1e9
    findings = bugs_in(current)
    assert findings.bugs == ()
    assert not findings.bad.any()


def test_infinity_is_out_of_every_range() -> None:
    current = people(400, seed=4)
    current.loc[:30, "age"] = np.inf
    assert [bug.problem for bug in bugs_in(current).bugs] == ["out_of_range"]


def test_a_column_that_did_not_vary_in_training_may_move_a_little() -> None:
    """Training rows of January do not make December a bug; a thousandfold value is one."""
    january = pd.DataFrame({"age": np.ones(1000)})
    assert bugs_in(pd.DataFrame({"age": np.full(300, 12.0)}), january).bugs == ()
    assert bugs_in(pd.DataFrame({"age": np.full(300, 1000.0)}), january).bugs != ()


def test_ink_in_a_corner_that_was_always_blank_is_no_bug() -> None:
    """Columns of one unit, as pixels are, share their range."""
    random = np.random.default_rng(5)
    pixels = [Feature(name=f"p{i}") for i in range(16)]
    frame = pd.DataFrame(random.uniform(0, 16, (500, 16)), columns=[p.name for p in pixels])
    frame["p0"], frame["p1"] = 0.0, random.integers(0, 2, 500).astype(float)
    moved = frame.assign(p0=16.0, p1=16.0)
    assert find(frame, moved, pixels, bug_share=0.005, range_slack=3.0).bugs == ()
    wrong = frame.assign(p5=frame["p5"] * 100)
    (bug,) = find(frame, wrong, pixels, bug_share=0.005, range_slack=3.0).bugs
    assert bug.column == "p5"


def test_gaps_are_a_bug_where_they_jump_and_not_where_they_are_usual() -> None:
    """A broken join shows; a few more of the usual gaps do not."""

    def with_gaps(rows: int, share: float) -> pd.DataFrame:
        frame = people(rows, seed=6)
        frame.loc[: int(rows * share) - 1, "age"] = np.nan
        return frame

    assert [bug.problem for bug in bugs_in(with_gaps(400, 0.05)).bugs] == ["missing"]
    usual = with_gaps(1000, 0.2)
    assert bugs_in(with_gaps(400, 0.25), usual).bugs == ()
    assert [bug.problem for bug in bugs_in(with_gaps(400, 0.8), usual).bugs] == ["missing"]


def test_a_renamed_code_is_a_bug() -> None:
    current = people(400, seed=7)
    current.loc[current["city"] == "Oslo", "city"] = "OSL"
    (bug,) = bugs_in(current).bugs
    assert (bug.column, bug.problem) == ("city", "unseen_category")
    assert '"OSL"' in bug.detail


def test_rare_newcomers_and_open_vocabularies_are_no_bug() -> None:
    """Where values seen only once are usual, values never seen are usual too."""
    current = people(1000, seed=8)
    current.loc[:8, "city"] = [f"Village {i}" for i in range(9)]
    assert bugs_in(current).bugs == ()
    random = np.random.default_rng(9)
    names = [pd.DataFrame({"city": random.integers(0, 9**9, 800).astype(str)}) for _ in range(2)]
    assert bugs_in(names[1].astype(object), names[0].astype(object)).bugs == ()


def test_no_rows_no_bugs() -> None:
    assert bugs_in(people(0)).bugs == ()
