"""A real Evidently report: its numbers are ours, and no odd column ends it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wasserstein_distance

from homeostat.records import Feature, FeatureKind, Score
from monitor import evidently_report
from monitor.frames import generator, typed
from monitor.scores import scores

COMPARED = (
    *(Feature(name=f"x{i}") for i in range(20)),
    Feature(name="gaps"),
    Feature(name="flag"),
    Feature(name="gone"),
    Feature(name="fixed"),
    Feature(name="city", kind=FeatureKind.CATEGORY),
    Feature(name="_prediction", kind=FeatureKind.CATEGORY),
)


def table(rows: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({f"x{i}": random.normal(shift * (i % 2), 1, rows) for i in range(20)})
    frame["gaps"] = np.where(random.random(rows) < 0.3, np.nan, random.normal(size=rows))
    frame.loc[0, "gaps"] = np.inf
    frame["flag"] = 0.0 if shift == 0 else 1.0
    frame["gone"] = random.normal(size=rows) if shift == 0 else np.nan
    frame["fixed"] = 3.0
    frame["city"] = random.choice(np.array(["Bern", "Rome", None]), rows)
    frame["_prediction"] = random.choice(["0", "1"], rows, p=[0.5 + shift / 3, 0.5 - shift / 3])
    return typed(frame, COMPARED, "a table")


Scores = tuple[Score, ...]
Written = tuple[Path, pd.DataFrame, pd.DataFrame, Scores, Scores]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("report") / "a-check"
    reference, current = table(800, 1), table(300, 2, shift=1.0)
    ours = scores(reference, current, COMPARED, generator("c"))
    return (
        folder,
        reference,
        current,
        ours,
        evidently_report.write(reference, current, ours, folder),
    )


def test_evidentlys_numbers_are_ours(written: Written) -> None:
    """On the same rows the same distances, so that the report says what the verdict says."""
    _, _, _, ours, theirs = written
    assert [s.column for s in theirs] == [s.column for s in ours]
    for mine, other in zip(ours, theirs, strict=True):
        assert other.value == pytest.approx(mine.value, rel=1e-9, abs=1e-7), mine.column
        assert (other.method, other.threshold, other.drifted) == (
            mine.method,
            mine.threshold,
            mine.drifted,
        )


def test_the_scores_are_evidentlys_own_and_not_an_echo(written: Written) -> None:
    """The values come back from the snapshot: wrong ones handed in do not survive."""
    folder, reference, current, ours, _ = written
    wrong = [
        Score(column=s.column, method=s.method, value=9.0, threshold=s.threshold, drifted=True)
        for s in ours
        if s.column in {"x0", "x1"}
    ]
    again = evidently_report.write(reference, current, wrong, folder.with_name("again"))
    for score in again:
        column = reference[score.column], current[score.column]
        expected = wasserstein_distance(*column) / column[0].std(ddof=0)
        assert score.value == pytest.approx(expected)
    assert not next(s for s in again if s.column == "x0").drifted


def test_both_files_are_there_with_every_column(written: Written) -> None:
    """Columns that moved most are drawn, the others are told in a number."""
    folder, _, _, ours, _ = written
    html = (folder / "report.html").read_text()
    metrics = json.loads((folder / "snapshot.json").read_text())["metrics"]
    expected = {score.column for score in ours} - {"gone"}
    assert {metric["config"]["column"] for metric in metrics} == expected
    assert all(f"column '{name}'" in html for name in expected)
    assert len(metrics) > evidently_report.DRAWN


def test_constant_and_empty_columns_do_not_end_it(written: Written) -> None:
    """A constant that moved is drift; one that did not is left out; an emptied column is told."""
    _, _, _, _, theirs = written
    by_name = {score.column: score for score in theirs}
    assert "fixed" not in by_name
    assert by_name["flag"].drifted
    assert by_name["gone"].drifted
    assert by_name["_prediction"].drifted


def test_few_rows_do_not_end_it(tmp_path: Path) -> None:
    """Two rows on a side are little to say, but no reason to fail."""
    reference, current = table(2, 3), table(2, 4, shift=1.0)
    ours = scores(reference, current, COMPARED, generator("c"))
    evidently_report.write(reference, current, ours, tmp_path / "r")
    assert (tmp_path / "r" / "report.html").exists()


def test_what_evidently_cannot_do_is_our_error(tmp_path: Path) -> None:
    """Its exceptions, some of which would end a process, stop at the door."""
    reference = current = table(20, 5)
    absent = Score(column="x0", method="jensenshannon", value=1, threshold=0.1, drifted=True)
    with pytest.raises(evidently_report.ReportFailed, match="Evidently's report failed"):
        evidently_report.write(
            reference.assign(x0=pd.Series([[1]] * 20)),
            current.assign(x0=pd.Series([[2]] * 20)),
            [absent],
            tmp_path,
        )


def test_nothing_to_compare_writes_nothing(tmp_path: Path) -> None:
    assert evidently_report.write(table(5, 1), table(5, 2), [], tmp_path / "r") == ()
    assert not (tmp_path / "r").exists()
