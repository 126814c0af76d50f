"""`python -m bench.check_sides SIDE FOLDER`: one check of two frames, in a process that ends.

Writes FOLDER/SIDE.json: the seconds of the work alone (imports and reading apart) and the score
of each column.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

Work = Callable[[pd.DataFrame, pd.DataFrame], Mapping[str, float]]


def ours(most: int | None) -> Work:
    """Scores and verdict without a report, on at most so many rows a side (None: as shipped)."""
    from homeostat.columns import PREDICTION
    from homeostat.settings_of_the_loop import MonitorSettings
    from monitor.notebook import check

    settings = MonitorSettings() if most is None else MonitorSettings(report_rows=most)

    def work(reference: pd.DataFrame, current: pd.DataFrame) -> Mapping[str, float]:
        verdict = check(reference, current, prediction=PREDICTION, settings=settings)
        return {score.column: score.value for score in verdict.scores}

    return work


def evidently() -> Work:
    """The preset as its documentation shows it, with the columns' kinds named."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    def work(reference: pd.DataFrame, current: pd.DataFrame) -> Mapping[str, float]:
        numbers = [name for name in reference.columns if name.startswith("x")]
        definition = DataDefinition(
            numerical_columns=numbers,
            categorical_columns=[name for name in reference.columns if name not in numbers],
        )
        snapshot = Report([DataDriftPreset()]).run(
            Dataset.from_pandas(current, data_definition=definition),
            Dataset.from_pandas(reference, data_definition=definition),
        )
        return {
            metric["config"]["column"]: float(metric["value"])
            for metric in snapshot.dict()["metrics"]
            if "column" in metric["config"]
        }

    return work


SIDES: Mapping[str, Callable[[], Work]] = {
    "all_rows": lambda: ours(10**9),
    "as_shipped": lambda: ours(None),
    "evidently": evidently,
}


def main(side: str, folder: Path) -> None:
    work = SIDES[side]()
    reference = pd.read_parquet(folder / "reference.parquet")
    current = pd.read_parquet(folder / "current.parquet")
    began = time.perf_counter()
    scores = work(reference, current)
    seconds = time.perf_counter() - began
    answer = {"seconds": seconds, "scores": scores}
    (folder / f"{side}.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
