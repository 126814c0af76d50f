"""Checks see what the log holds of the inputs: all, six numbers, nothing; never what is hidden."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from homeostat import settings
from homeostat.jobs import CheckJob
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.encoding.recording import Recording
from homeostat.journal.forgetting.traces import read_trace
from homeostat.journal.writer import JournalWriter
from homeostat.records import (
    Feature,
    FeatureKind,
    Label,
    ModelSpec,
    Task,
    Verdict,
    VerdictKind,
    Window,
)
from monitor.job import check

START = datetime(2026, 11, 20, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
NUMBERS = ("length", "width", "height")
SPEC = ModelSpec(
    model="boxes",
    version="7",
    runtime="pyfunc",
    task=Task.CLASSIFICATION,
    features=(
        *(Feature(name=name) for name in NUMBERS),
        Feature(name="colour", kind=FeatureKind.CATEGORY),
    ),
)
TENSOR = ModelSpec(
    model="boxes",
    version="7",
    runtime="torch",
    task=Task.CLASSIFICATION,
    features=tuple(Feature(name=name) for name in NUMBERS),
    tensor_shape=(3,),
)
KEY = b"a key of some length"


class Project:
    """A project whose log is kept as `journal` says; hours of rows, and checks of them."""

    def __init__(self, folder: Path, spec: ModelSpec = SPEC, **journal: Any) -> None:
        self.folder, self.spec = folder, spec
        self.keep(**journal)
        references = folder / ".homeostat/references"
        references.mkdir(parents=True)
        training = pd.DataFrame(self.matrix(600, 99), columns=list(NUMBERS))
        training = training.assign(colour=self.colours(600), _prediction="big")
        training.to_parquet(references / "training.parquet")

    def keep(self, **journal: Any) -> None:
        lines = "\n".join(f"{name} = {value!r}" for name, value in journal.items())
        (self.folder / "homeostat.toml").write_text(
            f'[model]\nname = "boxes"\n[journal]\n{lines}\n[monitor]\nmin_rows = 100\n'
            'min_labels = 50\nevery = "1h"\nreport_rows = 400\n'
        )
        self.settings = settings.load(self.folder, {"KEY": KEY.decode()})
        self.recording = Recording(
            inputs=journal.get("inputs", "full"),
            redact=frozenset(journal.get("redact", ())),
            hash=frozenset(journal.get("hash", ())),
            hash_key=KEY,
        )

    def matrix(self, rows: int, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).uniform(10, 20, (rows, 3)).astype(np.float32)

    def colours(self, rows: int) -> list[str]:
        return ["red", "blue"] * (rows // 2)

    def hour(self, hour: int, *, times: float = 1.0, wrong: float = 0.05) -> None:
        home, rows = self.folder / ".homeostat", 300
        writer = JournalWriter(
            url=str(home / "journal"),
            spool=home / "spool",
            model="boxes",
            task=Task.CLASSIFICATION,
            writer_id="test",
            durability="spool",
            commit_every=HOUR,
            commit_bytes=10**8,
            clock=lambda: START + hour * HOUR,
            recording=self.recording,
        )
        writer.start()
        matrix, time = self.matrix(rows, hour) * times, START + hour * HOUR
        columns = dict(zip(NUMBERS, matrix.T.tolist(), strict=True)) | {
            "colour": self.colours(rows)
        }
        tensor = self.spec.tensor_shape is not None
        ids = [f"{hour}-{n}" for n in range(rows)]
        writer.append(
            PredictionBatch(
                ids=ids,
                time_us=int(time.timestamp() * 1_000_000),
                version="7",
                features=self.spec.names,
                matrix=matrix if tensor else None,
                columns=None if tensor else columns,
                categories=frozenset(["colour"]),
                keys=[f"owner-{n % 10}" for n in range(rows)],
                tensor=tensor,
                predictions=["big"] * rows,
                latency_us=100,
            )
        )
        values = ["small" if n < wrong * rows else "big" for n in range(rows)]
        writer.label(
            [Label(prediction_id=i, value=v, time=time) for i, v in zip(ids, values, strict=True)]
        )
        writer.close()

    def check(self, hour: int, reference: bool = True) -> Verdict:
        production = "references/production.parquet"
        job = CheckJob(
            check_id=f"check-{hour}",
            project=str(self.folder),
            window=Window(model="boxes", start=START + hour * HOUR, end=START + (hour + 1) * HOUR),
            spec=self.spec,
            training_reference="references/training.parquet",
            reference=production if reference else None,
            rebase_to=production,
            baseline_error=0.05,
            baseline_rows=500,
        )
        return check(job, self.settings, lambda: START + (hour + 1) * HOUR).verdict

    @property
    def production(self) -> Path:
        return self.folder / ".homeostat/references/production.parquet"


@pytest.mark.parametrize("spec", [SPEC, TENSOR])
def test_descriptors_are_compared_with_those_of_the_reference(
    tmp_path: Path, spec: ModelSpec
) -> None:
    """The same function on both sides: a good hour is ok, one that moved is seen."""
    project = Project(tmp_path, spec, inputs="descriptors")
    project.hour(0)
    project.hour(1, times=1.2)
    first = project.check(0, reference=False)
    assert (first.kind, first.rebased) == (VerdictKind.OK, True), first.reason
    assert {"inputs_mean", "inputs_largest"} <= set(pd.read_parquet(project.production).columns)
    second = project.check(1)
    assert second.kind is VerdictKind.BENIGN_SHIFT, second.reason
    drifted = {score.column for score in second.scores if score.drifted}
    assert {"inputs_mean", "inputs_smallest", "inputs_largest"} <= drifted


def test_without_inputs_errors_and_answers_are_still_watched(tmp_path: Path) -> None:
    """Nothing is said of inputs that nobody logged, and concept drift is found."""
    project = Project(tmp_path, inputs="none")
    project.hour(0)
    project.hour(1, wrong=0.6, times=100.0)
    assert project.check(0, reference=False).rebased
    assert list(pd.read_parquet(project.production).columns) == ["_prediction"]
    second = project.check(1)
    assert second.kind is VerdictKind.CONCEPT_DRIFT
    assert 'the log holds no inputs (journal.inputs = "none")' in second.reason
    assert "as before" not in second.reason


@pytest.mark.parametrize("spec", [SPEC, TENSOR])
def test_hidden_columns_are_not_compared(tmp_path: Path, spec: ModelSpec) -> None:
    """Redacted and hashed columns are left out, and the verdict says so."""
    project = Project(tmp_path, spec, redact=["width"], hash=["length", "key"], hash_key_env="KEY")
    project.hour(0)
    verdict = project.check(0, reference=False)
    assert verdict.kind is VerdictKind.OK, verdict.reason
    assert "not compared: length, width" in verdict.reason
    columns = set(pd.read_parquet(project.production).columns)
    assert columns == {"height", "_prediction", *({"colour"} if spec is SPEC else ())}


def test_settings_that_change_between_checks_harm_none(tmp_path: Path) -> None:
    """A reference that lacks what is logged now gives way to a new one; rows of other settings
    are left out."""
    project = Project(tmp_path, inputs="descriptors")
    project.hour(0)
    assert project.check(0, reference=False).rebased
    project.keep(inputs="full")
    project.hour(1)
    verdict = project.check(1)
    assert (verdict.kind, verdict.rebased) == (VerdictKind.OK, True), verdict.reason
    assert "length" in pd.read_parquet(project.production).columns
    assert project.check(0).kind is VerdictKind.NO_DATA  # described, not logged
    project.keep(inputs="descriptors")
    project.hour(2)
    assert project.check(2).kind is VerdictKind.OK  # the reference's features can be described


@pytest.mark.parametrize("spec", [SPEC, TENSOR])
def test_rows_of_which_a_column_was_hidden_are_no_rows_without_a_value(
    tmp_path: Path, spec: ModelSpec
) -> None:
    """An hour that was logged with a redacted column is not compared as one full of nulls; the
    verdict says how many rows that were."""
    project = Project(tmp_path, spec)
    project.hour(0)
    assert project.check(0, reference=False).rebased
    project.keep(redact=["width"])
    project.hour(1)
    project.keep()
    verdict = project.check(1)
    assert verdict.kind is VerdictKind.NO_DATA, verdict.reason
    assert "left out: 300 rows that were logged under other settings" in verdict.reason


def test_reference_says_which_rows_it_holds(tmp_path: Path) -> None:
    """Beside it lie the ids and keys of its rows, for those who want to be forgotten."""
    project = Project(tmp_path)
    project.hour(0)
    project.check(0, reference=False)
    trace = read_trace(project.production)
    assert trace["prediction_id"].to_pylist() == [f"0-{n}" for n in range(300)]
    assert trace["key"].to_pylist()[:2] == ["owner-0", "owner-1"]
