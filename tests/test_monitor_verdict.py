"""Evidence in, verdict out: the order of the questions, and what is never said."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.records import DataBug, ErrorComparison, Score, VerdictKind, Window
from monitor.verdict import Evidence, Limits, Moved, judge, moved

END = datetime(2026, 11, 20, 12, tzinfo=UTC)
LIMITS = Limits(min_rows=100, min_labels=50, drift_share=0.5)
STILL = Moved(rows=400, drifted=("a",), compared=10)
SHIFTED = Moved(rows=400, drifted=tuple("abcdefg"), compared=10)
WORSE = ErrorComparison(
    metric="error_rate", baseline=0.05, current=0.3, labelled=200, p_value=1e-9, worse=True
)
FINE = replace(WORSE, current=0.06, p_value=0.4, worse=False)
BUG = DataBug(column="age", problem="out_of_range", rows=40, share=0.1, detail="values up to 900")
CALM = Evidence(
    check_id="c",
    window=Window(model="m", start=END - timedelta(hours=1), end=END),
    version="3",
    rows=400,
    matured=400,
    labelled=200,
    inputs=STILL,
    errors=FINE,
)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, VerdictKind.OK),
        ({"errors": None, "labelled": 3}, VerdictKind.OK),
        ({"rows": 99, "inputs": None, "errors": None}, VerdictKind.NO_DATA),
        ({"bugs": (BUG,), "bad_rows": 40}, VerdictKind.DATA_BUG),
        ({"bugs": (BUG,), "errors": WORSE, "inputs": SHIFTED}, VerdictKind.DATA_BUG),
        ({"errors": WORSE}, VerdictKind.CONCEPT_DRIFT),
        ({"errors": WORSE, "inputs": None}, VerdictKind.CONCEPT_DRIFT),
        ({"errors": WORSE, "inputs": SHIFTED}, VerdictKind.HARMFUL_SHIFT),
        ({"errors": WORSE, "since_onset": SHIFTED}, VerdictKind.HARMFUL_SHIFT),
        ({"errors": WORSE, "since_onset": STILL}, VerdictKind.CONCEPT_DRIFT),
        ({"inputs": SHIFTED}, VerdictKind.BENIGN_SHIFT),
        ({"inputs": SHIFTED, "errors": None, "labelled": 3}, VerdictKind.UNDETERMINED),
    ],
)
def test_the_kinds(changes: dict[str, Any], kind: VerdictKind) -> None:
    """The table of judge's docstring."""
    verdict = judge(replace(CALM, **changes), LIMITS)
    assert verdict.kind is kind
    assert not verdict.rebased


moves = st.builds(
    lambda compared, drifted: Moved(
        rows=400, drifted=tuple(map(str, range(min(drifted, compared)))), compared=compared
    ),
    st.integers(0, 12),
    st.integers(0, 12),
)
evidence = st.builds(
    replace,
    st.just(CALM),
    rows=st.integers(0, 1000),
    bugs=st.sampled_from([(), (BUG,)]),
    inputs=st.none() | moves,
    since_onset=st.none() | moves,
    errors=st.sampled_from([None, FINE, WORSE]),
    against_production=st.booleans(),
)


@given(evidence)
def test_what_is_never_said(case: Evidence) -> None:
    """No harm without labels, no shift from training data alone, no reference from bad windows."""
    verdict = judge(case, LIMITS)
    harm = {VerdictKind.HARMFUL_SHIFT, VerdictKind.CONCEPT_DRIFT}
    if case.errors is None or not case.errors.worse:
        assert verdict.kind not in harm
    if case.bugs:
        assert verdict.kind in {VerdictKind.DATA_BUG, VerdictKind.NO_DATA}
    if not case.against_production:
        assert verdict.kind not in {VerdictKind.BENIGN_SHIFT, VerdictKind.UNDETERMINED}
    if verdict.rebased:
        assert verdict.kind is VerdictKind.OK
        assert not case.against_production
        assert not case.bugs
        assert case.rows >= LIMITS.min_rows
    assert verdict.reason


def test_the_first_good_window_becomes_the_reference() -> None:
    """Production differs from training data even on a good day."""
    verdict = judge(replace(CALM, against_production=False, inputs=SHIFTED), LIMITS)
    assert (verdict.kind, verdict.rebased) == (VerdictKind.OK, True)
    assert verdict.reason.startswith("production window became the reference (400 rows")


def test_a_bad_first_window_does_not() -> None:
    """A reference of a broken day would hide the breakage for ever."""
    for changes in ({"errors": WORSE}, {"bugs": (BUG,)}, {"rows": 3}):
        verdict = judge(replace(CALM, against_production=False, **changes), LIMITS)
        assert not verdict.rebased


def test_reasons_name_the_numbers() -> None:
    """Someone woken at night reads what happened, how sure it is, and where to look."""
    harmful = judge(replace(CALM, errors=WORSE, since_onset=SHIFTED), LIMITS)
    assert harmful.reason == (
        "error rate 0.3, promised 0.05 (200 of 400 matured rows have labels, p = 1e-09), and the "
        "inputs moved: 1 of 10 features moved, 7 in the 400 rows since the errors rose (most: a)"
    )
    bug = judge(replace(CALM, bugs=(BUG,), bad_rows=40), LIMITS)
    assert bug.reason == (
        '40 of 400 rows hold values that cannot be right: "age" out of range in 10.0% of rows '
        "(values up to 900)"
    )
    few = judge(replace(CALM, rows=1), LIMITS)
    assert few.reason == "1 row in the window; a check needs 100 (monitor.min_rows)"


def test_predictions_are_reported_but_do_not_count_as_inputs() -> None:
    """A model's own answers drift when its inputs do; they would count twice."""
    scores = [
        Score(column="a", method="wasserstein", value=0.2, threshold=0.1, drifted=True),
        Score(column="b", method="wasserstein", value=0.9, threshold=0.1, drifted=True),
        Score(column="c", method="wasserstein", value=0.0, threshold=0.1, drifted=False),
        Score(column="_prediction", method="jensenshannon", value=1.0, threshold=0.1, drifted=True),
    ]
    assert moved(scores, ["a", "b", "c"], 7) == Moved(rows=7, drifted=("b", "a"), compared=3)
