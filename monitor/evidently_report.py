"""The only door to Evidently: a report with our methods and thresholds, so that it says what we do.

Its default methods are not used: up to 1,000 reference rows Evidently tests p-values, which find
a difference in nearly everything. Its preset is not used either: it computes each column three
times and draws each twice. One metric a column gives the same numbers in a third of the time, and
drawing only the columns that moved most halves that again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.core.metric_types import SingleValueCalculation
from evidently.core.report import ReferenceMetricNotFound
from evidently.legacy.calculations.stattests import get_stattest
from evidently.legacy.renderers.html_widgets import CounterData, counter
from evidently.metrics import ValueDrift

from homeostat.errors import HomeostatError
from homeostat.records import Score
from monitor.scores import JENSEN_SHANNON, WASSERSTEIN

HTML = "report.html"
SNAPSHOT = "snapshot.json"
DRAWN = 16  # columns with plots, those that moved most; the others are shown as a number


class ReportFailed(HomeostatError):
    """Evidently could not make its report; the verdict stands without it."""


class UndrawnDrift(ValueDrift):  # type: ignore[misc]
    """Evidently's own test of one column, without the plots that take most of its time."""


class UndrawnDriftCalculation(SingleValueCalculation[UndrawnDrift]):  # type: ignore[misc]
    def display_name(self) -> str:
        return f"Value drift for {self.metric.column}"

    def calculate(self, context: Any, current_data: Dataset, reference_data: Dataset) -> Any:
        metric = self.metric
        current, reference = (data.column(metric.column) for data in (current_data, reference_data))
        clean = [side.data.dropna() for side in (reference, current)]
        test = get_stattest(*clean, current.type, metric.method)
        outcome = test(*clean, current.type, metric.threshold)
        result = self.result(outcome.drift_score)
        said = "detected" if outcome.drifted else "not detected"
        result.widget = [
            counter(
                title=f"Drift in column '{metric.column}'",
                counters=[
                    CounterData(
                        f"Data drift {said}. Drift detection method: {test.display_name}, "
                        f"threshold {metric.threshold:.3f}. Drift score",
                        f"{outcome.drift_score:.3f}",
                    )
                ],
            )
        ]
        return result


def write(
    reference: pd.DataFrame, current: pd.DataFrame, scores: Sequence[Score], folder: Path
) -> tuple[Score, ...]:
    """Write report.html and snapshot.json into the folder; the scores with Evidently's values.

    The frames are typed (monitor.frames.typed). The scores name the columns, their methods and
    thresholds; one without a distance (a column empty on one side) is returned as it is. Raises
    ReportFailed, never Evidently's own errors.
    """
    measured = [s for s in scores if s.method in (WASSERSTEIN, JENSEN_SHANNON)]
    if not measured:
        return tuple(scores)
    names = [score.column for score in measured]
    definition = DataDefinition(
        numerical_columns=[s.column for s in measured if s.method == WASSERSTEIN],
        categorical_columns=[s.column for s in measured if s.method == JENSEN_SHANNON],
    )
    try:
        snapshot = Report(_metrics(measured)).run(
            Dataset.from_pandas(_finite(current[names]), data_definition=definition),
            Dataset.from_pandas(_finite(reference[names]), data_definition=definition),
        )
        folder.mkdir(parents=True, exist_ok=True)
        snapshot.save_html(str(folder / HTML))
        snapshot.save_json(str(folder / SNAPSHOT))
        values = {
            metric["config"]["column"]: float(metric["value"])
            for metric in snapshot.dict()["metrics"]
        }
    except ReferenceMetricNotFound as error:  # a BaseException: it would end the process
        raise ReportFailed(f"Evidently's report failed: {error}") from error
    except Exception as error:
        raise ReportFailed(f"Evidently's report failed: {type(error).__name__}: {error}") from error
    return tuple(_with_value(score, values.get(score.column, score.value)) for score in scores)


def _finite(frame: pd.DataFrame) -> pd.DataFrame:
    """Evidently measures without infinities but draws with them."""
    return frame.replace([np.inf, -np.inf], np.nan)


def _metrics(measured: Sequence[Score]) -> list[ValueDrift]:
    """Those that moved most come first, and are drawn."""
    ordered = sorted(measured, key=lambda score: score.value / score.threshold, reverse=True)
    return [
        (ValueDrift if place < DRAWN else UndrawnDrift)(
            column=score.column, method=score.method, threshold=score.threshold
        )
        for place, score in enumerate(ordered)
    ]


def _with_value(score: Score, value: float) -> Score:
    if score.method not in (WASSERSTEIN, JENSEN_SHANNON):
        return score
    return replace(score, value=value, drifted=value >= score.threshold)
