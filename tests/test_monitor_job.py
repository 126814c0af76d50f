"""`python -m monitor check` in a real child process, over a real journal."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from homeostat import settings
from homeostat.errors import JobError
from homeostat.jobs import SPEC, CheckJob, CheckResult, read_result
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.reader import Journal
from homeostat.journal.writer import JournalWriter
from homeostat.records import (
    Feature,
    Label,
    ModelSpec,
    Task,
    Verdict,
    VerdictKind,
    Window,
    to_json,
)
from monitor.job import check, prune

START = datetime(2026, 11, 20, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
NAMES = ("length", "width", "height")
MODEL_SPEC = ModelSpec(
    model="boxes",
    version="7",
    runtime="pyfunc",
    task=Task.CLASSIFICATION,
    features=tuple(Feature(name=name) for name in NAMES),
)
TOML = """
[model]
name = "boxes"
[monitor]
min_rows = 100
min_labels = 50
every = "1h"
report_rows = 400
keep_reports = 2
"""


def boxes(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(10, 20, (rows, 3))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with three hours: a good one, one with a unit bug, one with other answers."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "homeostat.toml").write_text(TOML)
    home = folder / ".homeostat"
    writer = JournalWriter(
        url=str(home / "journal"),
        spool=home / "spool",
        model="boxes",
        task=Task.CLASSIFICATION,
        writer_id="test",
        durability="spool",
        commit_every=timedelta(minutes=1),
        commit_bytes=10**8,
        clock=lambda: START + 3 * HOUR,
    )
    writer.start()
    for hour, wrong in enumerate((0.05, 0.05, 0.6)):
        matrix = boxes(300, hour)
        if hour == 1:
            matrix[:40, 1] *= 100
        time = START + hour * HOUR + timedelta(minutes=20)
        for version, count in (("7", 300), ("6", 50)):
            ids = [f"{hour}-{version}-{place}" for place in range(count)]
            writer.append(
                PredictionBatch(
                    ids=ids,
                    time_us=int(time.timestamp() * 1_000_000),
                    version=version,
                    features=NAMES,
                    matrix=matrix[:count],
                    tensor=False,
                    columns=None,
                    predictions=["big"] * count,
                    probabilities=None,
                    embedding=None,
                    latency_us=100,
                )
            )
            writer.label(
                [
                    Label(
                        prediction_id=id_,
                        value="small" if place < wrong * count else "big",
                        time=time + timedelta(minutes=1),
                    )
                    for place, id_ in enumerate(ids[: count // 2] if hour < 2 else ids)
                ]
            )
    writer.flush()
    writer.close()
    references = home / "references"
    references.mkdir()
    training = pd.DataFrame(boxes(500, 99), columns=NAMES).assign(_prediction="big")
    training.to_parquet(references / "training.parquet")
    return folder


def spec(project: Path, hour: int, **changes: Any) -> CheckJob:
    start = START + hour * HOUR
    job = CheckJob(
        check_id=f"check-{hour}",
        project=str(project),
        window=Window(model="boxes", start=start, end=start + HOUR, versions=("7",)),
        spec=MODEL_SPEC,
        training_reference="references/training.parquet",  # from the home folder
        reference=str(project / ".homeostat/references/production.parquet"),
        rebase_to=str(project / ".homeostat/references/production.parquet"),
        baseline_error=0.05,
        baseline_rows=500,
    )
    return replace(job, **changes)


def run(job: CheckJob, folder: Path) -> tuple[Verdict, str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPEC).write_bytes(to_json(job))
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "monitor", "check", folder],
        env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=False,
    )
    result = read_result(folder, CheckResult)
    assert result is not None, done.stderr[-2000:]
    assert done.returncode == 0
    return result.verdict, done.stderr


@pytest.fixture(scope="module")
def first(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    """The check of the first hour, it becomes the reference."""
    folder = tmp_path_factory.mktemp("job")
    return run(spec(project, 0, reference=None), folder)[0]


def test_the_first_window_becomes_the_reference(project: Path, first: Verdict) -> None:
    """Its rows, of the champion only, are written where the job said."""
    assert (first.kind, first.rebased, first.rows) == (VerdictKind.OK, True, 300), first.reason
    written = pd.read_parquet(project / ".homeostat/references/production.parquet")
    assert list(written.columns) == [*NAMES, "_prediction"]
    assert np.allclose(written[list(NAMES)].to_numpy(), boxes(300, 0))


def test_the_report_lies_where_the_verdict_says(project: Path, first: Verdict) -> None:
    assert first.report == "reports/check-0"
    assert (project / ".homeostat" / first.report / "report.html").exists()
    assert (project / ".homeostat" / first.report / "snapshot.json").exists()


def test_the_verdict_has_what_people_ask_for(first: Verdict) -> None:
    assert first.labelled == 150
    assert first.errors is not None
    assert "150 of 300 matured rows have labels" in first.reason
    assert first.seconds > 0
    assert {score.column for score in first.scores} == set(NAMES)  # one answer: left out


def here(project: Path, hour: int) -> Verdict:
    """The same work without a process of its own, which takes seconds to import Evidently."""
    return check(spec(project, hour), settings.load(project, {}), lambda: START + 4 * HOUR).verdict


def test_bad_rows_go_to_quarantine_and_a_second_run_says_the_same(
    project: Path, first: Verdict
) -> None:
    """A job killed before its result was written is run again, over what it left behind."""
    verdicts = [here(project, 1) for _ in range(2)]
    for verdict in verdicts:
        assert verdict.kind is VerdictKind.DATA_BUG
        assert [bug.column for bug in verdict.bugs] == ["width"]
        assert verdict.quarantined == 40
    journal = Journal(str(project / ".homeostat/journal"), "boxes", Task.CLASSIFICATION)
    left = journal.window(START + HOUR, START + 2 * HOUR, NAMES, versions=("7",)).to_pandas()
    assert len(left) == 260
    assert left["width"].max() <= 20


def test_answers_that_are_wrong_now_are_concept_drift(project: Path, first: Verdict) -> None:
    verdict = here(project, 2)
    assert verdict.kind is VerdictKind.CONCEPT_DRIFT, verdict.reason


def test_an_empty_window_has_no_data_and_imports_nothing_slow(
    project: Path, first: Verdict, tmp_path: Path
) -> None:
    """A loop that checks a quiet model every few seconds should not cost a core."""
    verdict, imports = run(spec(project, 9), tmp_path)
    assert (verdict.kind, verdict.rows, verdict.report) == (VerdictKind.NO_DATA, 0, None)
    assert "evidently" not in imports
    assert "pandas" in imports


def test_a_reference_that_is_gone_is_an_error_that_says_so(project: Path, tmp_path: Path) -> None:
    (tmp_path / SPEC).write_bytes(to_json(spec(project, 9, training_reference="gone.parquet")))
    done = subprocess.run([sys.executable, "-m", "monitor", "check", tmp_path], check=False)
    assert done.returncode == 1
    with pytest.raises(JobError, match=r"gone\.parquet is gone"):
        read_result(tmp_path, CheckResult)


def test_a_wrong_command_line_says_how_it_is_used() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "monitor"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr[:6]) == (2, "usage:")


def test_only_the_newest_reports_are_kept(tmp_path: Path) -> None:
    """Anything that is no report stays."""
    for place in range(4):
        folder = tmp_path / f"report-{place}"
        folder.mkdir()
        (folder / "snapshot.json").touch()
        os.utime(folder, (place, place))
    (tmp_path / "notes").mkdir()
    prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "report-2", "report-3"]
