"""The gate's main lines: the newest labels, the test set, and the minimum for a first version."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from homeostat.records import GateCheck, GateOutcome, Task
from homeostat.settings_of_the_loop import GateSettings
from retrain.paired import LEVEL, Floats, Loss, Paired, compare, errors

PASS, FAIL, TOO_FEW = GateOutcome.PASS, GateOutcome.FAIL, GateOutcome.TOO_FEW


@dataclass(frozen=True, kw_only=True)
class Line:
    """One check of the gate; an outcome of None only reports."""

    name: str
    outcome: GateOutcome | None
    detail: str
    value: float | None = None
    limit: float | None = None

    def check(self) -> GateCheck:
        passed = None if self.outcome is None else self.outcome is PASS
        return GateCheck(
            name=self.name, passed=passed, value=self.value, limit=self.limit, detail=self.detail
        )


@dataclass(frozen=True, kw_only=True)
class Side:
    """One set of rows, reduced to the errors on those that count."""

    name: str
    task: Task
    rows: int
    contradicted: int
    candidate: float | None  # mean error; None without rows
    champion: float | None
    loss: Loss | None

    @property
    def figures(self) -> str:
        """Such as "540 rows of the test set (accuracy 0.981 against 0.985)"."""
        if self.candidate is None:
            return f"no rows of the {self.name}"
        against = "" if self.champion is None else f" against {self.metric(self.champion)}"
        what = "accuracy" if self.task is Task.CLASSIFICATION else "mae"
        mine = self.metric(self.candidate)
        return f"{self.rows:,} rows of the {self.name} ({what} {mine}{against})"

    def metric(self, error: float) -> str:
        return f"{1 - error:.4f}" if self.task is Task.CLASSIFICATION else f"{error:.5g}"


def side_of(name: str, rows: Paired | None, task: Task) -> Side:
    if rows is None or not rows.mask.any():
        contradicted = 0 if rows is None else len(rows.labels)
        return Side(
            name=name,
            task=task,
            rows=0,
            contradicted=contradicted,
            candidate=None,
            champion=None,
            loss=None,
        )
    mask = rows.mask
    candidate = errors(rows.candidate, rows.labels, task)[mask]
    champion = None if rows.champion is None else errors(rows.champion, rows.labels, task)[mask]
    return Side(
        name=name,
        task=task,
        rows=int(mask.sum()),
        contradicted=int((~mask).sum()),
        candidate=float(candidate.mean()),
        champion=None if champion is None else float(champion.mean()),
        loss=None
        if champion is None
        else compare(candidate, champion, task, in_time_order=rows.in_time_order),
    )


def prediction_log(misfit: str | None) -> Line:
    """Rows that do not fit could only be set aside once the version serves."""
    name = "prediction log"
    if misfit is None:
        return Line(name=name, outcome=PASS, detail="its rows fit the prediction log")
    return Line(name=name, outcome=FAIL, detail=misfit)


def unknown_log(problem: str) -> Line:
    return Line(name="prediction log", outcome=None, detail=f"not asked: {problem}")


def newest_labels(holdout: Side, test: Side, harm: bool, settings: GateSettings) -> Line:
    """After harm the candidate must be better there; otherwise not worse than the margin."""
    loss, name = holdout.loss, "newest labels"
    if loss is None or holdout.rows < settings.min_rows:
        detail = f"only {holdout.rows} of the newest labels, {settings.min_rows} needed"
        alone = not harm and test.rows >= settings.min_rows  # the test set can decide alone
        return Line(name=name, outcome=None if alone else TOO_FEW, detail=detail)
    if is_better(loss):
        return _measured(name, PASS, "better", holdout, 0.0)
    if harm:
        return _measured(name, FAIL, "not shown to be better", holdout, 0.0)
    margin = margin_of(holdout, settings.margin)
    within = loss.mean <= margin
    return _measured(
        name, PASS if within else FAIL, "not worse" if within else "worse", holdout, margin
    )


def test_set(test: Side, holdout: Side, configured: bool, settings: GateSettings) -> Line:
    """Not worse by more than the margin on the test rows that count."""
    loss, name = test.loss, "test set"
    enough = holdout.rows >= settings.min_rows
    if not configured:
        detail = "no test set is configured ([gate] test_set): the newest labels decide alone"
        return Line(name=name, outcome=None, detail=detail)
    if test.contradicted and enough and test.rows < max(settings.min_rows, test.contradicted):
        # Where most rows are seen to be wrong, some that are not seen so will be wrong too.
        detail = (
            f"newer labels contradict {test.contradicted:,} of its rows and leave "
            f"{test.rows:,}: it does not count any more"
        )
        return Line(name=name, outcome=None, detail=detail)
    if loss is None or test.rows < settings.min_rows:
        detail = f"only {test.rows} test rows, {settings.min_rows} needed"
        return Line(name=name, outcome=TOO_FEW, detail=detail)
    margin = margin_of(test, settings.margin)
    proven = enough and holdout.loss is not None and is_better(holdout.loss)
    worse = loss.mean > margin and (is_worse(loss) or not proven)
    return _measured(name, FAIL if worse else PASS, "worse" if worse else "not worse", test, margin)


def minimum(sides: tuple[Side, Side], rows: Paired | None, settings: GateSettings) -> Line:
    """With no champion: an absolute minimum, else surely better than a constant answer."""
    test, holdout = sides
    side = test if test.rows >= settings.min_rows else holdout
    if rows is None or side.candidate is None or side.rows < settings.min_rows:
        detail = (
            f"only {test.rows} test rows ({settings.min_rows} needed) to judge a first version "
            "by: set [gate] test_set, or `homeostat promote` it yourself"
        )
        return Line(name="minimum", outcome=TOO_FEW, detail=detail)
    if settings.minimum is not None:
        classes = side.task is Task.CLASSIFICATION
        value = 1 - side.candidate if classes else side.candidate
        passed = value >= settings.minimum if classes else value <= settings.minimum
        words = "reaches" if passed else "misses"
        detail = f"{words} the minimum of {settings.minimum:g} on {side.figures}"
        return Line(
            name="minimum",
            outcome=PASS if passed else FAIL,
            detail=detail,
            value=value,
            limit=settings.minimum,
        )
    passed, constant = _beats_constant(rows, side.task)
    words = "better than" if passed else "not shown to be better than"
    what = "the most frequent class" if side.task is Task.CLASSIFICATION else "the mean"
    return Line(
        name="minimum",
        outcome=PASS if passed else FAIL,
        detail=f"{words} {what} ({side.metric(constant)}) on {side.figures}",
        value=side.candidate,
        limit=constant,
    )


def margin_of(side: Side, margin: float) -> float:
    """In units of the error: points of accuracy, or a share of the champion's own error."""
    if side.task is Task.CLASSIFICATION or side.champion is None:
        return margin
    return margin * side.champion


def is_better(loss: Loss) -> bool:
    return loss.mean < 0 and loss.p_better < LEVEL


def is_worse(loss: Loss) -> bool:
    return loss.mean > 0 and loss.p_worse < LEVEL


def _measured(name: str, outcome: GateOutcome, words: str, side: Side, limit: float) -> Line:
    assert side.loss is not None
    return Line(
        name=name,
        outcome=outcome,
        detail=f"{words} on {side.figures}",
        value=side.loss.mean,
        limit=limit,
    )


def _beats_constant(rows: Paired, task: Task) -> tuple[bool, float]:
    """Whether the candidate is surely better than the best constant answer, and its error."""
    labels = rows.labels[rows.mask]
    mine = errors(rows.candidate, rows.labels, task)[rows.mask]
    constant: Floats
    if task is Task.CLASSIFICATION:
        values, counts = np.unique(labels, return_counts=True)
        constant = np.asarray(labels != values[counts.argmax()], dtype=np.float64)
    else:
        constant = np.abs(labels - labels.mean())
    error = float(constant.mean())
    if task is Task.CLASSIFICATION:  # a constant's share is a figure here, not a rival's answers
        p = float(stats.binom.cdf(int(mine.sum()), len(mine), error))
    else:
        p = compare(mine, constant, task, in_time_order=False).p_better
    return bool(mine.mean() < error and p < LEVEL), error
