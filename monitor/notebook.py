"""`monitor.check`: the same judgement for notebooks and scripts, on two tables."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from homeostat import columns
from homeostat.errors import InputError
from homeostat.records import Feature, FeatureKind, Task, Verdict, Window
from homeostat.settings_of_the_loop import MonitorSettings
from monitor import frames
from monitor.assessment import Subject, assess


def check(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    *,
    prediction: str | None = None,
    label: str | None = None,
    task: Task = Task.CLASSIFICATION,
    baseline_error: float | None = None,
    baseline_rows: int = 0,
    settings: MonitorSettings | None = None,
    report: Path | None = None,
    name: str = "check",
) -> Verdict:
    """Compare a table, in time order, with a reference of the same columns.

    `prediction` and `label` name columns; every other column of the reference is a feature. The
    error promised is `baseline_error`, or what the reference's own labels say; with neither, only
    inputs are judged. With a folder for the report, Evidently writes one (and takes seconds to
    import). `name` seeds the sampling: the same name and rows give the same verdict.

    >>> import numpy as np, pandas as pd, monitor
    >>> random = np.random.default_rng(1)
    >>> may = pd.DataFrame({"age": random.normal(40, 9, 2000), "city": ["A", "B"] * 1000})
    >>> june = may.sample(800, random_state=1).assign(age=lambda rows: rows["age"] + 20)
    >>> verdict = monitor.check(may, june)
    >>> verdict.kind.value
    'undetermined'
    >>> [score.column for score in verdict.scores if score.drifted]
    ['age']
    """
    chosen = settings or MonitorSettings()
    features = _features(reference, {prediction, label})
    before = _renamed(reference, prediction, label, "the reference")
    now = _renamed(current, prediction, label, "the current table")
    error, rows = baseline_error, baseline_rows
    if error is None and columns.LABEL in before:
        error, rows = _error_of(before, task)
    if error is None:
        now = now.drop(columns=columns.LABEL, errors="ignore")
    moment = datetime.now(UTC)
    subject = Subject(
        check_id=name,
        window=Window(model=name, start=moment, end=moment),
        version="",
        task=task,
        features=features,
        baseline_error=error or 0.0,
        baseline_rows=rows,
    )
    return assess(
        subject, training=before, production=before, current=now, settings=chosen, report=report
    ).verdict


def _features(reference: pd.DataFrame, others: set[str | None]) -> tuple[Feature, ...]:
    taken = others | columns.RESERVED
    return tuple(
        Feature(
            name=str(name),
            kind=FeatureKind.NUMBER
            if pd.api.types.is_numeric_dtype(reference[name])
            else FeatureKind.CATEGORY,
        )
        for name in reference.columns
        if name not in taken
    )


def _renamed(
    frame: pd.DataFrame, prediction: str | None, label: str | None, what: str
) -> pd.DataFrame:
    names = {prediction: columns.PREDICTION, label: columns.LABEL}
    for name in names:
        if name is not None and name not in frame.columns:
            raise InputError(f'{what} has no column "{name}"', field=name)
    frame = frame.rename(columns={old: new for old, new in names.items() if old is not None})
    if columns.PREDICTION not in frame:
        frame = frame.assign(**{columns.PREDICTION: None})
    return frame


def _error_of(frame: pd.DataFrame, task: Task) -> tuple[float | None, int]:
    known = frame[frame[columns.LABEL].notna() & frame[columns.PREDICTION].notna()]
    if known.empty:
        return None, 0
    if task is Task.REGRESSION:
        return float((known[columns.LABEL] - known[columns.PREDICTION]).abs().mean()), len(known)
    wrong = frames.text(known[columns.LABEL]) != frames.text(known[columns.PREDICTION])
    return float(np.mean(wrong)), len(known)
