"""Two models' answers on the same rows -> pass, fail or too few: cases, laws, error rates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.records import GateCheck, GateOutcome, GateReport, Task, VerdictKind
from homeostat.settings_of_the_loop import GateSettings
from homeostat.words import Size
from retrain.gate import decide
from retrain.paired import Answers, Loss, Paired, calibration_error, compare, holm
from retrain.side_checks import Cost

SETTINGS = GateSettings(min_rows=100)
HARM = VerdictKind.HARMFUL_SHIFT
PASS, FAIL, TOO_FEW = GateOutcome.PASS, GateOutcome.FAIL, GateOutcome.TOO_FEW


def rows(
    both: int, candidate_only: int, champion_only: int, neither: int = 0, *, seed: int = 0
) -> Paired:
    """So many rows on which both are right, only one of them, or none; in a random order."""
    candidate = np.repeat([1, 1, 0, 0], [both, candidate_only, champion_only, neither])
    champion = np.repeat([1, 0, 1, 0], [both, candidate_only, champion_only, neither])
    order = np.random.default_rng(seed).permutation(len(candidate))
    return Paired(
        labels=np.full(len(candidate), "1"),
        candidate=Answers(predictions=candidate[order].astype(str)),
        champion=Answers(predictions=champion[order].astype(str)),
    )


def gate(
    test: Paired | None,
    holdout: Paired | None,
    *,
    settings: GateSettings = SETTINGS,
    kind: VerdictKind | None = HARM,
    champion: str | None = "1",
    cost: Cost | None = None,
    task: Task = Task.CLASSIFICATION,
) -> GateReport:
    return decide(
        test,
        holdout,
        settings=settings,
        task=task,
        candidate="2",
        champion=champion,
        verdict_kind=kind,
        cost=cost or Cost(),
    )


def check(report: GateReport, name: str) -> GateCheck:
    return next(c for c in report.checks if c.name == name)


EQUAL = rows(480, 5, 5, 10)
BETTER = rows(300, 80, 10, 10)
WORSE = rows(450, 2, 40, 8)


@pytest.mark.parametrize(
    ("test", "holdout", "kind", "outcome", "says"),
    [
        (EQUAL, BETTER, HARM, PASS, "accuracy 0.9500 against 0.7750"),
        (WORSE, BETTER, HARM, FAIL, "worse on 500 rows of the test set"),
        (EQUAL, EQUAL, HARM, FAIL, "not shown to be better"),
        (EQUAL, EQUAL, None, PASS, "not worse"),
        (EQUAL, WORSE, None, FAIL, "worse on 500 rows of the newest labels"),
        (EQUAL, rows(20, 20, 0), HARM, TOO_FEW, "only 40 of the newest labels, 100 needed"),
        (EQUAL, None, None, PASS, "not worse on 500 rows of the test set"),
        (EQUAL, None, HARM, TOO_FEW, "only 0 of the newest labels"),
        (rows(20, 0, 0), BETTER, HARM, TOO_FEW, "only 20 test rows, 100 needed"),
        (WORSE, rows(20, 20, 0), HARM, FAIL, "worse on 500 rows of the test set"),
        (None, BETTER, HARM, PASS, "no test set is configured"),
    ],
)
def test_who_has_to_prove_what(
    test: Paired | None,
    holdout: Paired | None,
    kind: VerdictKind | None,
    outcome: GateOutcome,
    says: str,
) -> None:
    """After harm: better on the newest labels, and not surely worse on the test set."""
    report = gate(test, holdout, kind=kind)
    assert report.outcome is outcome, report.reason
    assert says in report.reason
    assert report.candidate == "2"
    assert report.champion == "1"


def test_a_small_loss_counts_only_where_nothing_speaks_for_the_candidate() -> None:
    """Six rows of five hundred may be chance: they block a candidate that showed no gain."""
    slightly_worse = rows(470, 12, 18)
    assert gate(slightly_worse, BETTER).outcome is PASS
    assert check(gate(slightly_worse, EQUAL, kind=None), "test set").passed is False


def test_rows_that_newer_labels_contradict_are_reported_not_counted() -> None:
    """Where the meaning changed, old test rows would defend the old champion."""
    counted = np.ones(500, bool)
    lost = (WORSE.candidate.predictions == "0") & (WORSE.champion.predictions == "1")  # type: ignore[union-attr]
    counted[lost] = False
    report = gate(replace(WORSE, counted=counted), BETTER, kind=VerdictKind.CONCEPT_DRIFT)
    assert report.outcome is PASS
    assert (report.contradicted_rows, report.test_rows) == (40, 460)


def test_a_test_set_that_is_mostly_contradicted_counts_no_more() -> None:
    """Then the newest labels decide alone, and the report says so."""
    counted = np.arange(500) < 200
    report = gate(replace(WORSE, counted=counted), BETTER, kind=VerdictKind.CONCEPT_DRIFT)
    assert report.outcome is PASS
    assert "contradict 300 of its rows" in check(report, "test set").detail
    nothing = gate(replace(WORSE, counted=np.zeros(500, bool)), BETTER)
    assert nothing.outcome is PASS
    assert nothing.candidate_test is None


def test_what_the_candidate_promises_is_its_error_on_the_newest_labels() -> None:
    """Later checks compare with it; without enough newest labels, the test set's stands in."""
    report = gate(EQUAL, BETTER)
    assert report.baseline_error == pytest.approx(0.05)
    assert report.baseline_rows == 400
    assert report.candidate_holdout == pytest.approx(0.95)
    few = gate(EQUAL, rows(30, 0, 0))
    assert few.baseline_error == pytest.approx(0.03)
    assert few.baseline_rows == 500


def test_a_slice_may_not_get_worse() -> None:
    """A gain overall does not pay for what one camera loses."""
    settings = replace(SETTINGS, slices=("camera", "missing"))
    side = rows(500, 60, 0, 40, seed=1)
    left = np.arange(600) < 120
    champion = np.where(left, "1", side.champion.predictions)  # type: ignore[union-attr]
    candidate = np.where(left & (np.arange(600) < 30), "0", side.candidate.predictions)
    camera = np.where(left, "left", "right")
    sliced = replace(
        side,
        candidate=Answers(predictions=candidate),
        champion=Answers(predictions=champion),
        slices={"camera": camera},
    )
    report = gate(sliced, BETTER, settings=settings)
    assert check(report, "test set").passed is True
    assert check(report, "slices").passed is False
    assert "camera = left (test set)" in report.reason
    unknown = gate(EQUAL, BETTER, settings=settings)
    assert check(unknown, "slices").passed is None


def test_confidence_may_not_lose_touch_with_the_truth() -> None:
    """The same answers with more confidence than they deserve fail on calibration."""
    right = EQUAL.candidate.predictions == "1"
    fair = np.full(len(right), right.mean())
    champion = replace(EQUAL.candidate, probabilities=np.stack([1 - fair, fair], axis=1))
    unsure = np.full(len(right), 0.6)
    candidate = replace(EQUAL.candidate, probabilities=np.stack([1 - unsure, unsure], axis=1))
    paired = replace(EQUAL, candidate=candidate, champion=champion)
    report = gate(paired, None, kind=None)
    assert report.outcome is FAIL
    assert check(report, "calibration (test set)").passed is False
    swapped = replace(paired, candidate=champion, champion=candidate)
    assert gate(swapped, None, kind=None).outcome is PASS


def test_slow_or_large_candidates_fail() -> None:
    """Latency is relative to the champion's, size absolute."""
    slow = gate(EQUAL, BETTER, cost=Cost(candidate_seconds=0.03, champion_seconds=0.01))
    assert slow.outcome is FAIL
    assert "3.00 times" in slow.reason
    fine = gate(EQUAL, BETTER, cost=Cost(candidate_seconds=0.015, champion_seconds=0.01, size=10))
    assert fine.outcome is PASS
    large = gate(
        EQUAL, BETTER, cost=Cost(size=2000), settings=replace(SETTINGS, max_size=Size(1000))
    )
    assert large.outcome is FAIL


@pytest.mark.parametrize(
    ("right", "minimum", "outcome"),
    [
        (180, None, PASS),
        (70, None, FAIL),
        (180, 0.95, FAIL),
        (180, 0.9, PASS),
    ],
)
def test_a_first_version_meets_an_absolute_minimum(
    right: int, minimum: float | None, outcome: GateOutcome
) -> None:
    """Without a champion it must surely beat the most frequent class, or reach the set minimum."""
    labels = np.array(["a", "b"] * 100)
    said = np.where(np.arange(200) < right, labels, "c")
    first = Paired(labels=labels, candidate=Answers(predictions=said), champion=None)
    report = gate(first, None, champion=None, settings=replace(SETTINGS, minimum=minimum))
    assert report.outcome is outcome, report.reason
    assert report.champion_test is None


def test_a_first_version_without_test_rows_cannot_be_judged() -> None:
    """The reason says what to do."""
    report = gate(None, None, champion=None)
    assert report.outcome is TOO_FEW
    assert "[gate] test_set" in report.reason


def numbers(noise: float, champion_noise: float, count: int = 400, seed: int = 0) -> Paired:
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 10, count)
    return Paired(
        labels=truth,
        candidate=Answers(predictions=truth + rng.normal(0, noise, count)),
        champion=Answers(predictions=truth + rng.normal(0, champion_noise, count)),
    )


def test_regression_is_judged_by_absolute_errors() -> None:
    """The margin is a share of the champion's own error."""
    regression = {"task": Task.REGRESSION}
    better = gate(numbers(1.0, 1.2), numbers(1.0, 2.0, seed=1), **regression)  # type: ignore[arg-type]
    assert better.outcome is PASS
    assert better.metric == "mae"
    assert better.candidate_holdout == pytest.approx(0.8, abs=0.1)
    worse = gate(numbers(1.5, 1.0), numbers(1.0, 2.0, seed=1), **regression)  # type: ignore[arg-type]
    assert worse.outcome is FAIL
    first = replace(numbers(1.0, 1.0), champion=None)
    assert gate(first, None, champion=None, **regression).outcome is PASS  # type: ignore[arg-type]
    useless = replace(
        first, candidate=Answers(predictions=np.random.default_rng(1).normal(0, 9, 400))
    )
    assert gate(useless, None, champion=None, **regression).outcome is FAIL  # type: ignore[arg-type]


counts = st.integers(0, 300)


@given(counts, counts, st.integers(0, 60))
def test_equal_answers_are_never_better(both: int, neither: int, seed: int) -> None:
    """A copy of the champion changes no answer and is not promoted after harm."""
    same = rows(both, 0, 0, neither, seed=seed)
    report = gate(EQUAL, same)
    assert report.outcome in (FAIL, TOO_FEW)
    assert all(c.value == 0 for c in report.checks if c.name == "churn (newest labels)")


@given(counts, counts, counts, counts)
def test_at_most_one_of_two_is_better(both: int, mine: int, theirs: int, neither: int) -> None:
    """Swapped, what was better is not."""
    one, other = rows(both, mine, theirs, neither), rows(both, theirs, mine, neither)
    outcomes = [gate(None, side).outcome for side in (one, other)]
    assert outcomes != [PASS, PASS]


def difference(paired: Paired) -> Loss:
    assert paired.champion is not None
    said = (paired.candidate.predictions, paired.champion.predictions)
    mine, theirs = ((answers != paired.labels).astype(float) for answers in said)
    return compare(mine, theirs, Task.CLASSIFICATION, in_time_order=False)


@given(counts, st.integers(0, 40), st.integers(0, 40), st.integers(1, 200))
def test_rows_both_get_right_change_no_churn(both: int, mine: int, theirs: int, more: int) -> None:
    """They dilute the share of changed answers, not their number, and never prove a gain."""

    def churned(count: int) -> float:
        paired = rows(count, mine, theirs)
        found = [c.value for c in gate(None, paired).checks if c.name == "churn (newest labels)"]
        return round((found[0] or 0.0) * len(paired.labels)) if found else 0.0

    assert churned(both) == churned(both + more) == mine + theirs
    first, second = (difference(rows(both + 2 + n, mine, theirs)) for n in (0, more))
    assert (first.mean < 0) == (second.mean < 0)


def test_neighbours_that_agree_make_a_difference_less_sure() -> None:
    """Forty wins in one run of rows prove less than forty wins spread out."""
    champion = np.ones(400)
    spread, burst = champion.copy(), champion.copy()
    spread[::20] = 0
    burst[100:120] = 0

    def p(candidate: np.ndarray, in_time_order: bool) -> float:
        return compare(
            candidate, champion, Task.CLASSIFICATION, in_time_order=in_time_order
        ).p_better

    assert p(spread, True) == p(spread, False) == p(burst, False)
    assert p(burst, True) > 10 * p(spread, True)


def test_holm_and_calibration_keep_their_definitions() -> None:
    """Small worked examples."""
    assert holm([0.01, 0.04, 0.03], 0.05) == [True, False, False]
    assert holm([0.01, 0.02, 0.04], 0.05) == [True, True, True]
    assert holm([], 0.05) == []
    confident = np.array([0.9] * 10)
    right = np.arange(10) < 9
    assert calibration_error(right, confident, bins=1) == pytest.approx(0.0)
    assert calibration_error(right, np.full(10, 0.5), bins=1) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("gain_new", "loss_old", "least", "most"),
    [
        (0.00, 0.00, 0.00, 0.08),  # an equal model, after harm
        (-0.02, 0.02, 0.00, 0.01),  # two points worse everywhere
        (0.10, 0.04, 0.00, 0.05),  # better today, but it forgot
        (0.10, 0.00, 0.90, 1.00),  # what retraining is for
    ],
)
def test_error_rates_of_the_gate(
    gain_new: float, loss_old: float, least: float, most: float
) -> None:
    """Over many simulated candidates few bad ones pass and few good ones are turned away."""
    rng = np.random.default_rng(3)

    def side(count: int, gain: float, churn: float) -> Paired:
        chances = [0.8 - churn / 2, (churn + gain) / 2, (churn - gain) / 2]
        mine = rng.multinomial(count, [*chances, 1 - sum(chances)])
        return rows(*(int(n) for n in mine), seed=int(rng.integers(1 << 30)))

    passed = [
        gate(side(1000, -loss_old, 0.06), side(500, gain_new, 0.14)).outcome is PASS
        for _ in range(100)
    ]
    assert least <= np.mean(passed) <= most
