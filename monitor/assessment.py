"""One window of rows -> evidence -> verdict; the only files are the report's."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from homeostat import columns
from homeostat.records import ErrorComparison, Feature, Score, Task, Verdict, Window
from homeostat.settings_of_the_loop import MonitorSettings
from monitor import concept, data_bugs, frames
from monitor.scores import scores
from monitor.verdict import Evidence, Limits, judge, moved

log = logging.getLogger(__name__)

LEAST_BEFORE_ONSET = 0.1  # of the labelled rows; below it the rows since are the whole window


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Whose rows they are, and what that version promised."""

    check_id: str
    window: Window
    version: str
    task: Task
    features: tuple[Feature, ...]
    baseline_error: float
    baseline_rows: int
    unseen: str = ""  # what of the inputs is not compared, for people

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def compared(self) -> tuple[Feature, ...]:
        return frames.compared(self.features, self.task)


@dataclass(frozen=True)
class Assessment:
    verdict: Verdict
    bad: data_bugs.Mask  # one entry a row of the window: those to put aside


@dataclass(frozen=True)
class _Matured:
    """The rows old enough to have a label."""

    rows: int
    labelled: NDArray[np.intp]  # positions of those with a label, in time order
    errors: concept.Errors  # one entry for each of these


def assess(
    subject: Subject,
    *,
    training: pd.DataFrame,
    production: pd.DataFrame | None,
    current: pd.DataFrame,
    settings: MonitorSettings,
    report: Path | None,
) -> Assessment:
    """Judge the rows of a window, in time order.

    `training` tells what a feature may be, `production` (or else `training`) what it usually is;
    both hold the features and `_prediction`. `current` may also hold `_label` and `_time`. Where a
    folder for the report is given, Evidently writes it, and the numbers judged are Evidently's.
    """
    limits = Limits(
        min_rows=settings.min_rows,
        min_labels=settings.min_labels,
        drift_share=settings.drift_share,
    )
    evidence = Evidence(
        check_id=subject.check_id,
        window=subject.window,
        version=subject.version,
        rows=len(current),
        against_production=production is not None,
        unseen=subject.unseen,
    )
    if len(current) < settings.min_rows:
        return Assessment(judge(evidence, limits), np.zeros(len(current), dtype=bool))
    rows = frames.typed(current, subject.compared, "the window")
    trained = frames.typed(training, subject.compared, "the training reference")
    findings = data_bugs.find(
        trained,
        rows,
        subject.features,
        bug_share=settings.bug_share,
        range_slack=settings.range_slack,
    )
    good = ~findings.bad
    matured = _matured(subject, current[good], settings)
    errors = _compare(subject, matured, settings)
    evidence = replace(
        evidence,
        bad_rows=int(findings.bad.sum()),
        bugs=findings.bugs,
        matured=matured.rows,
        labelled=len(matured.errors),
        errors=errors,
    )
    if good.sum() >= settings.min_rows:
        usual = (
            trained
            if production is None
            else frames.typed(production, subject.compared, "the reference")
        )
        evidence = _with_inputs(evidence, subject, usual, rows[good], matured, settings, report)
    return Assessment(judge(evidence, limits), findings.bad)


def _matured(subject: Subject, rows: pd.DataFrame, settings: MonitorSettings) -> _Matured:
    """Labels that came before their time are left out: those that come early are not like the
    rest (a flight that arrived is a flight that was not cancelled)."""
    old = np.ones(len(rows), dtype=bool)
    if columns.TIME in rows:
        old = (rows[columns.TIME] <= subject.window.end - settings.label_delay).to_numpy()
    if columns.LABEL not in rows:
        return _Matured(int(old.sum()), np.array([], dtype=np.intp), np.array([]))
    labels, said = rows[columns.LABEL], rows[columns.PREDICTION]
    labelled = np.flatnonzero(old & labels.notna().to_numpy() & said.notna().to_numpy())
    labels, said = labels.iloc[labelled], said.iloc[labelled]
    if subject.task is Task.REGRESSION:
        errors = (pd.to_numeric(labels) - pd.to_numeric(said)).abs().to_numpy(dtype=float)
    else:
        errors = (frames.text(labels) != frames.text(said)).to_numpy(dtype=float)
    return _Matured(int(old.sum()), labelled, errors)


def _compare(
    subject: Subject, matured: _Matured, settings: MonitorSettings
) -> ErrorComparison | None:
    if len(matured.errors) < max(1, settings.min_labels):
        return None
    return concept.compare(
        matured.errors,
        subject.task,
        baseline=subject.baseline_error,
        baseline_rows=subject.baseline_rows,
        alpha=concept.alpha_of(settings.false_alarms, settings.every),
        floor=settings.error_floor,
    )


def _with_inputs(
    evidence: Evidence,
    subject: Subject,
    usual: pd.DataFrame,
    rows: pd.DataFrame,
    matured: _Matured,
    settings: MonitorSettings,
    report: Path | None,
) -> Evidence:
    random = frames.generator(subject.check_id)
    most = settings.report_rows
    usual = frames.sampled(usual, most, random)
    found, written = _scores(usual, frames.sampled(rows, most, random), subject, random, report)
    evidence = replace(
        evidence,
        scores=found,
        inputs=moved(found, subject.names, len(rows)),
        report=written,
    )
    if evidence.errors is not None and evidence.errors.worse:
        onset = concept.onset(matured.errors)
        if onset > LEAST_BEFORE_ONSET * len(matured.errors):
            newest = rows.iloc[matured.labelled[onset] :]
            since, _ = _scores(usual, frames.sampled(newest, most, random), subject, random, None)
            evidence = replace(evidence, since_onset=moved(since, subject.names, len(newest)))
    return evidence


def _scores(
    usual: pd.DataFrame,
    rows: pd.DataFrame,
    subject: Subject,
    random: np.random.Generator,
    report: Path | None,
) -> tuple[tuple[Score, ...], str | None]:
    """The scores, and the report's folder where one was written."""
    usual, rows = frames.lumped(usual, rows, subject.compared)
    found = scores(usual, rows, subject.compared, random)
    if report is None or not found:
        return found, None
    from monitor import evidently_report  # seconds to import: only once there is something to say

    try:
        measured = evidently_report.write(usual, rows, found, report)
        return measured, str(report) if report.exists() else None  # it may have nothing to draw
    except evidently_report.ReportFailed as error:
        log.warning("%s; the verdict rests on our own measure of the same distances", error)
        return found, None
