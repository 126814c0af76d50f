"""Whole judgements on tables: monitor.check, and windows in which the world just moved."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

import monitor
from homeostat.errors import InputError, NotReady
from homeostat.records import Feature, Task, VerdictKind, Window
from homeostat.settings_of_the_loop import MonitorSettings
from monitor.assessment import Assessment, Subject, assess

SETTINGS = MonitorSettings(min_rows=100, min_labels=50)
END = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
FEATURES = tuple(Feature(name=f"x{i}") for i in range(6))


def rows(count: int, seed: int, *, shift: float = 0.0, wrong: float = 0.05) -> pd.DataFrame:
    """Six inputs, a prediction, and a label that differs from it this often."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        random.normal(shift, 1, (count, 6)), columns=[feature.name for feature in FEATURES]
    )
    frame["_prediction"] = (frame["x0"] > shift).astype(int).astype(str)
    flipped = (1 - frame["_prediction"].astype(int)).astype(str)
    frame["_label"] = frame["_prediction"].where(random.random(count) >= wrong, flipped)
    return frame


def judged(
    *parts: pd.DataFrame,
    production: pd.DataFrame | None = None,
    settings: MonitorSettings = SETTINGS,
) -> Assessment:
    """The verdict on a window of these parts, one after the other through the last hour."""
    current = pd.concat(parts, ignore_index=True)
    current["_time"] = [END - HOUR * (1 - place / len(current)) for place in range(len(current))]
    return assess(
        Subject(
            check_id="check",
            window=Window(model="m", start=END - HOUR, end=END),
            version="1",
            task=Task.CLASSIFICATION,
            features=FEATURES,
            baseline_error=0.05,
            baseline_rows=500,
        ),
        training=rows(1000, 1),
        production=production,
        current=current,
        settings=settings,
        report=None,
    )


PRODUCTION = rows(400, 2)


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_a_shift_that_harms_is_called_so_from_its_onset_on(share: float) -> None:
    """Before half of the columns of the whole window moved, the newest rows tell."""
    new = int(400 * share)
    outcome = judged(rows(400 - new, 3), rows(new, 4, shift=0.8, wrong=0.5), production=PRODUCTION)
    assert outcome.verdict.kind is VerdictKind.HARMFUL_SHIFT
    if share == 0.3:
        assert "since the errors rose" in outcome.verdict.reason


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_labels_that_change_their_meaning_are_concept_drift(share: float) -> None:
    """The same inputs, other answers."""
    new = int(400 * share)
    outcome = judged(rows(400 - new, 5), rows(new, 6, wrong=0.5), production=PRODUCTION)
    assert outcome.verdict.kind is VerdictKind.CONCEPT_DRIFT


def test_without_labels_a_shift_is_undetermined_and_with_good_ones_benign() -> None:
    """What is not known is not claimed."""
    moved = rows(400, 7, shift=0.8)
    assert judged(moved, production=PRODUCTION).verdict.kind is VerdictKind.BENIGN_SHIFT
    unlabelled = judged(moved.assign(_label=None), production=PRODUCTION).verdict
    assert (unlabelled.kind, unlabelled.labelled) == (VerdictKind.UNDETERMINED, 0)


def test_labels_that_came_before_their_time_are_not_counted() -> None:
    """Only rows older than the label delay are compared with the promise."""
    half = MonitorSettings(min_rows=100, min_labels=50, label_delay=HOUR / 2)
    parts = rows(200, 8), rows(200, 9, wrong=0.6)
    assert judged(*parts, production=PRODUCTION).verdict.kind is VerdictKind.CONCEPT_DRIFT
    verdict = judged(*parts, production=PRODUCTION, settings=half).verdict
    assert verdict.kind is VerdictKind.OK
    assert verdict.labelled in (200, 201)


def test_bad_rows_are_told_apart_and_the_rest_is_judged() -> None:
    """A bug hides neither the errors nor the inputs of the rows without it."""
    wrong = rows(100, 10).assign(x3=lambda frame: frame["x3"] * 1000 + 500)
    outcome = judged(rows(300, 11), wrong, production=PRODUCTION)
    verdict = outcome.verdict
    assert verdict.kind is VerdictKind.DATA_BUG
    assert verdict.quarantined == outcome.bad.sum() >= 90
    assert not outcome.bad[:300].any()
    assert "x3" not in [score.column for score in verdict.scores if score.drifted]
    assert verdict.errors is not None


def test_the_first_production_window_is_taken_as_reference() -> None:
    verdict = judged(rows(400, 12, shift=0.5)).verdict
    assert (verdict.kind, verdict.rebased) == (VerdictKind.OK, True)


def test_a_reference_of_another_model_is_an_error() -> None:
    """Better no verdict than one about other columns."""
    with pytest.raises(NotReady, match="lacks the column"):
        judged(rows(400, 13), production=PRODUCTION.drop(columns="x5"))


def test_check_compares_two_tables_of_a_notebook() -> None:
    """Names of columns in, a verdict out; the promise is the reference's own error."""
    names = {"_prediction": "said", "_label": "was"}
    reference = rows(1000, 14).rename(columns=names)
    for current, kind in (
        (rows(400, 15), VerdictKind.OK),
        (rows(400, 16, shift=1.0), VerdictKind.BENIGN_SHIFT),
        (rows(400, 17, shift=1.0, wrong=0.5), VerdictKind.HARMFUL_SHIFT),
        (rows(400, 18, wrong=0.5), VerdictKind.CONCEPT_DRIFT),
        (rows(9, 19), VerdictKind.NO_DATA),
    ):
        found = monitor.check(
            reference,
            current.rename(columns=names),
            prediction="said",
            label="was",
            settings=SETTINGS,
        )
        assert found.kind is kind, found.reason


def test_check_of_numbers_compares_absolute_errors() -> None:
    """Regression has a mean absolute error and numbers as predictions."""
    random = np.random.default_rng(20)

    def table(count: int, noise: float) -> pd.DataFrame:
        x = random.normal(size=count)
        return pd.DataFrame({"x": x, "said": 2 * x, "was": 2 * x + random.normal(0, noise, count)})

    verdict = monitor.check(
        table(1000, 1.0),
        table(400, 2.0),
        prediction="said",
        label="was",
        task=Task.REGRESSION,
        settings=SETTINGS,
    )
    assert verdict.kind is VerdictKind.CONCEPT_DRIFT
    assert "mean absolute error" in verdict.reason


def test_check_names_a_column_that_is_not_there() -> None:
    with pytest.raises(InputError, match='no column "said"'):
        monitor.check(rows(5, 1), rows(5, 2), prediction="said")


def test_importing_the_room_is_cheap() -> None:
    """`monitor` is imported by programs that will never check anything."""
    program = "import sys, monitor; assert not {'pandas', 'evidently', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
