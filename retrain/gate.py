"""Two models' answers on the same rows -> pass, fail, or too few rows: a pure decision.

Who has to prove what. On the newest matured labels the candidate must show that it is better
(after harm) or lie within the margin (a run somebody asked for). On the frozen test set, once it
has shown to be better on today's rows, it falls only when it is surely worse, and by more than
the margin: no test set of ordinary size could prove two equal models equal to half a point.
Without that proof its observed loss itself must lie within the margin.
"""

from __future__ import annotations

from dataclasses import dataclass

from homeostat.records import GateOutcome, GateReport, Task, VerdictKind
from homeostat.settings_of_the_loop import GateSettings
from retrain import gate_lines as lines
from retrain import side_checks
from retrain.gate_lines import FAIL, PASS, TOO_FEW, Line, Side, side_of
from retrain.paired import Paired
from retrain.side_checks import Cost

_HARM = (VerdictKind.HARMFUL_SHIFT, VerdictKind.CONCEPT_DRIFT)


def decide(
    test: Paired | None,
    holdout: Paired | None,
    *,
    settings: GateSettings,
    task: Task,
    candidate: str,
    champion: str | None,
    verdict_kind: VerdictKind | None,
    cost: Cost,
    log: Line | None = None,
) -> GateReport:
    """The gate's report; nothing is read or measured here. `log` says whether the candidate's
    rows fit the prediction log.

    `test` is None where no test set is configured; `holdout` None or empty where no new labels
    have matured. `champion` None: a first version, which absolute minimums judge.
    """
    sides = _Sides(
        test=side_of("test set", test, task), holdout=side_of("newest labels", holdout, task)
    )
    paired = {
        name: rows
        for name, rows in (("test set", test), ("newest labels", holdout))
        if rows is not None and len(rows.labels)
    }
    if champion is None:
        rows = test if sides.test.rows >= settings.min_rows else holdout
        found = [lines.minimum((sides.test, sides.holdout), rows, settings)]
    else:
        harm = verdict_kind in _HARM
        found = [
            lines.newest_labels(sides.holdout, sides.test, harm, settings),
            lines.test_set(sides.test, sides.holdout, test is not None, settings),
            *side_checks.slices(paired, task, settings),
            *side_checks.calibration(paired, task, settings),
            *side_checks.latency(cost, settings),
        ]
    found += side_checks.size(cost, settings)
    found += side_checks.churn(paired, task)
    found += [log] if log is not None else []
    outcome = _outcome(found)
    return _report(candidate, champion, task, sides, found, outcome, settings)


@dataclass(frozen=True, kw_only=True)
class _Sides:
    test: Side
    holdout: Side


def _outcome(found: list[Line]) -> GateOutcome:
    """What surely failed fails, however few the other rows."""
    outcomes = {line.outcome for line in found}
    for outcome in (FAIL, TOO_FEW):
        if outcome in outcomes:
            return outcome
    return PASS


def _report(
    candidate: str,
    champion: str | None,
    task: Task,
    sides: _Sides,
    found: list[Line],
    outcome: GateOutcome,
    settings: GateSettings,
) -> GateReport:
    test, holdout = sides.test, sides.holdout
    promise = holdout if holdout.rows >= settings.min_rows else test
    classes = task is Task.CLASSIFICATION

    def metric(error: float | None) -> float | None:
        return error if error is None or not classes else 1 - error

    return GateReport(
        outcome=outcome,
        reason=_reason(candidate, outcome, found),
        candidate=candidate,
        champion=champion,
        metric="accuracy" if classes else "mae",
        candidate_test=metric(test.candidate),
        champion_test=metric(test.champion),
        candidate_holdout=metric(holdout.candidate),
        champion_holdout=metric(holdout.champion),
        test_rows=test.rows,
        contradicted_rows=test.contradicted,
        holdout_rows=holdout.rows,
        checks=tuple(line.check() for line in found),
        baseline_error=promise.candidate or 0.0,
        baseline_rows=promise.rows,
    )


def _reason(candidate: str, outcome: GateOutcome, found: list[Line]) -> str:
    """One plain sentence with the figures that decided."""
    what = {PASS: "passed", FAIL: "is turned away", TOO_FEW: "cannot be judged"}[outcome]
    deciding = [line for line in found if line.outcome is outcome]
    if outcome is PASS:
        main = ("newest labels", "test set", "minimum")
        deciding = [line for line in found if line.name in main]
    told = "; ".join(
        line.detail
        if line.name in line.detail or outcome is PASS
        else f"{line.name}: {line.detail}"
        for line in deciding
    )
    return f"version {candidate} {what}: {told}"
