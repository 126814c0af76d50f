"""Evidence -> verdict: a pure function, and the words an engineer on call reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeostat.records import DataBug, ErrorComparison, Score, Verdict, VerdictKind, Window


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the settings ask for."""

    min_rows: int
    min_labels: int
    drift_share: float


@dataclass(frozen=True, kw_only=True)
class Moved:
    """How the inputs of some rows compare with the reference."""

    rows: int
    drifted: tuple[str, ...]  # features, those that moved most first
    compared: int

    @property
    def share(self) -> float | None:
        return len(self.drifted) / self.compared if self.compared else None

    def reaches(self, drift_share: float) -> bool:
        return self.share is not None and self.share >= drift_share


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that a verdict rests on."""

    check_id: str
    window: Window
    version: str
    rows: int
    bad_rows: int = 0  # of them, put aside as data bugs
    matured: int = 0  # good rows old enough to have a label
    labelled: int = 0  # of them, with one
    bugs: tuple[DataBug, ...] = ()
    scores: tuple[Score, ...] = ()  # of the good rows, the prediction's column too
    inputs: Moved | None = None  # of the good rows
    since_onset: Moved | None = None  # of those since the errors rose, where they did
    errors: ErrorComparison | None = None  # None: fewer labels than min_labels
    against_production: bool = True  # the reference is of production, not of training
    report: str | None = None
    unseen: str = ""  # what of the inputs the log does not hold


def moved(scores: Sequence[Score], features: Sequence[str], rows: int) -> Moved:
    """The features among the scores; a model's own predictions are reported, never counted."""
    names = frozenset(features)
    compared = [score for score in scores if score.column in names]
    ordered = sorted(compared, key=lambda score: score.value / score.threshold, reverse=True)
    return Moved(
        rows=rows,
        drifted=tuple(score.column for score in ordered if score.drifted),
        compared=len(compared),
    )


def judge(evidence: Evidence, limits: Limits) -> Verdict:
    """The verdict. In this order:

    - no_data: fewer than min_rows rows;
    - data_bug: impossible values; nothing else is concluded from such a window;
    - the error is worse than promised: harmful_shift where the inputs moved, concept_drift where
      they did not. Inputs moved when drift_share of the features did, in the whole window or in
      the rows since the errors rose: at its onset a shift fills only the end of the window, which
      raises the error of the whole sooner than it moves half of the columns;
    - inputs moved, error not worse: benign_shift with labels, undetermined without;
    - else ok.

    Without labels nothing is ever called harmful. Against training data inputs alone decide
    nothing, as production differs from it even on a good day: such a window, when no bug and no
    error speaks against it, becomes the reference (`rebased`).
    """
    kind, reason, rebased = _conclusion(evidence, limits)
    return Verdict(
        check_id=evidence.check_id,
        window=evidence.window,
        version=evidence.version,
        kind=kind,
        reason=reason,
        rows=evidence.rows,
        labelled=evidence.labelled,
        drift_share=evidence.inputs.share if evidence.inputs else None,
        scores=evidence.scores,
        bugs=evidence.bugs,
        errors=evidence.errors,
        quarantined=evidence.bad_rows,
        rebased=rebased,
        report=evidence.report,
    )


def _conclusion(evidence: Evidence, limits: Limits) -> tuple[VerdictKind, str, bool]:
    if evidence.rows < limits.min_rows:
        least = f"a check needs {limits.min_rows:,} (monitor.min_rows)"
        said = f"{_count(evidence.rows, 'row')} in the window; {least}"
        said = f"{said}; {evidence.unseen}" if evidence.unseen else said
        return VerdictKind.NO_DATA, said, False
    if evidence.bugs:
        return VerdictKind.DATA_BUG, _bug_reason(evidence), False
    shifted = evidence.inputs is not None and evidence.inputs.reaches(limits.drift_share)
    if evidence.errors is not None and evidence.errors.worse:
        recent = evidence.since_onset
        if shifted or (recent is not None and recent.reaches(limits.drift_share)):
            kind, said = VerdictKind.HARMFUL_SHIFT, "and the inputs moved"
        else:
            seen = evidence.inputs is not None and evidence.inputs.compared
            said = "while the inputs look as before" if seen else "whatever the inputs do"
            kind = VerdictKind.CONCEPT_DRIFT
        return kind, f"{_errors(evidence)}, {said}: {_inputs(evidence)}", False
    reason = f"{_inputs(evidence)}; {_errors(evidence)}"
    if not evidence.against_production:
        count = _count(evidence.rows, "row")
        return VerdictKind.OK, f"production window became the reference ({count}; {reason})", True
    return _unharmed(evidence, shifted, reason)


def _unharmed(evidence: Evidence, shifted: bool, reason: str) -> tuple[VerdictKind, str, bool]:
    if not shifted:
        return VerdictKind.OK, reason, False
    if evidence.errors is None:
        return VerdictKind.UNDETERMINED, f"{reason}: whether it harms cannot be told", False
    return VerdictKind.BENIGN_SHIFT, reason, False


def _bug_reason(evidence: Evidence) -> str:
    first = max(evidence.bugs, key=lambda bug: bug.rows)
    more = len(evidence.bugs) - 1
    also = f", and {_count(more, 'more problem')}" if more else ""
    return (
        f"{evidence.bad_rows:,} of {_count(evidence.rows, 'row')} hold values that cannot be "
        f'right: "{first.column}" {first.problem.replace("_", " ")} in {first.share:.1%} of rows '
        f"({first.detail}){also}"
    )


def _errors(evidence: Evidence) -> str:
    labels = f"{evidence.labelled:,} of {_count(evidence.matured, 'matured row')} have labels"
    errors = evidence.errors
    if errors is None:
        return f"too few labels to measure the error ({labels})"
    name = "error rate" if errors.metric == "error_rate" else "mean absolute error"
    change = f"{name} {errors.current:.3g}, promised {errors.baseline:.3g}"
    if errors.worse:
        return f"{change} ({labels}, p = {errors.p_value:.1g})"
    return f"{change}, not worse ({labels})"


def _inputs(evidence: Evidence) -> str:
    inputs, recent = evidence.inputs, evidence.since_onset
    if inputs is None or not inputs.compared:
        return evidence.unseen or "no feature varies enough to be compared"
    against = "" if evidence.against_production else " from the training data"
    text = f"{len(inputs.drifted)} of {_count(inputs.compared, 'feature')} moved{against}"
    named = inputs.drifted
    if recent is not None:
        text += f", {len(recent.drifted)} in the {recent.rows:,} rows since the errors rose"
        named = named or recent.drifted
    text += f" (most: {', '.join(named[:3])})" if named else ""
    return f"{text}; {evidence.unseen}" if evidence.unseen else text


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
