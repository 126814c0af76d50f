"""The jobs as the loop runs them: a training set, a candidate, its gate, in child processes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from sklearn.datasets import load_digits

from homeostat import events as types
from homeostat import settings as settings_module
from homeostat.columns import LABEL, PREDICTION
from homeostat.errors import JobError, NotReady
from homeostat.jobs import DatasetJob, DatasetResult, GateJob, GateResult, read_result
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.encoding.recording import Recording
from homeostat.journal.forgetting import traces
from homeostat.journal.reader import Journal
from homeostat.journal.writer import JournalWriter
from homeostat.records import (
    Action,
    Feature,
    GateOutcome,
    GateReport,
    Label,
    ModelSpec,
    Run,
    Stage,
    Task,
    VerdictKind,
    VersionRef,
    from_json,
    to_json,
)
from homeostat.registry import cache
from homeostat.registry.mlflow_registry import Registry
from homeostat.settings import Settings
from homeostat.state import events, rollouts
from loop import releasing
from loop.running import open_context
from retrain import dataset_job
from retrain.program import command_line, environment

PIXELS, MEANINGS = load_digits(return_X_y=True)
NAMES = tuple(f"p{i}" for i in range(64))
SPEC = ModelSpec(
    model="digits",
    version="1",
    runtime="torch",
    task=Task.CLASSIFICATION,
    features=tuple(Feature(name=name) for name in NAMES),
    tensor_shape=(64,),
)
START = datetime(2026, 5, 4, tzinfo=UTC)
TOML = """
[model]
name = "digits"
training_data = "train.parquet"
[retrain]
command = ["python", "{program}", "--data", "{{train}}"]
[gate]
test_set = "test.parquet"
"""
EVERYTHING = Recording()
OLD, TEST, TRAFFIC = slice(0, 800), slice(800, 1100), slice(1100, 1700)


def table(rows: slice) -> pd.DataFrame:
    frame = pd.DataFrame(PIXELS[rows], columns=list(NAMES)).astype(np.int32)
    return frame.assign(target=MEANINGS[rows])


def swapped(meanings: Any) -> Any:
    """3 and 8 have changed names."""
    return np.where(meanings == 3, 8, np.where(meanings == 8, 3, meanings))


@pytest.fixture
def project(tmp_path: Path) -> Settings:
    return make_project(tmp_path)


def make_project(folder: Path) -> Settings:
    program = Path(__file__).with_name("retrain_program.py")
    (folder / "homeostat.toml").write_text(TOML.format(program=program))
    table(OLD).to_parquet(folder / "train.parquet")
    table(TEST).to_parquet(folder / "test.parquet")
    return settings_module.load(folder, {})


def log_traffic(
    settings: Settings,
    meanings: Any,
    said: Any,
    *,
    unlabelled: int = 0,
    recording: Recording = EVERYTHING,
) -> list[str]:
    """A row a second from START on, labelled but for the first so many; the ids."""
    writer = JournalWriter(
        url=settings.journal_path,
        spool=settings.spool_path,
        model="digits",
        task=Task.CLASSIFICATION,
        writer_id="test",
        durability="spool",
        commit_every=timedelta(hours=1),
        commit_bytes=10**9,
        clock=lambda: START,
        recording=recording,
    )
    writer.start()
    rows = PIXELS[TRAFFIC].astype(np.float32)
    ids = [f"row-{i}" for i in range(len(rows))]
    for i, row in enumerate(rows):
        writer.append(
            PredictionBatch(
                ids=[ids[i]],
                time_us=int((START + timedelta(seconds=i)).timestamp() * 1e6),
                version="1",
                features=NAMES,
                matrix=row[None, :],
                tensor=True,
                columns=None,
                predictions=[str(said[i])],
                probabilities=None,
                embedding=None,
                latency_us=10,
            )
        )
    writer.label([label(i, meanings[i]) for i in range(unlabelled, len(rows))])
    writer.close()
    return ids


def label(row: int, meaning: Any, late: timedelta = timedelta(0)) -> Label:
    time = START + timedelta(seconds=row) + late
    return Label(prediction_id=f"row-{row}", value=str(meaning), time=time)


def at(seconds: float) -> int:
    return int((START + timedelta(seconds=seconds)).timestamp() * 1e6)


def spec_of(settings: Settings, output: Path, **changes: Any) -> DatasetJob:
    job = DatasetJob(
        run_id="run-1",
        project=str(settings.project),
        output=str(output),
        spec=SPEC,
        verdict_kind=VerdictKind.HARMFUL_SHIFT,
        base_train=None,
        base_holdout=None,
        base_contradicted=None,
        since_us=None,
        until_us=at(600),
    )
    return replace(job, **changes)


def run_job(verb: str, folder: Path, spec: object) -> int:
    folder.mkdir(parents=True)
    (folder / "spec.json").write_bytes(to_json(spec))
    done = subprocess.run(
        [sys.executable, "-m", "retrain", verb, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode in (0, 1), done.stderr[-3000:]
    return done.returncode


def build(spec: DatasetJob) -> DatasetResult:
    """The job's work without its process."""
    settings = settings_module.load(Path(spec.project), {})
    return dataset_job.build(spec, settings, clock=lambda: START + timedelta(seconds=600))


def contradicted_rows(output: Path) -> list[int]:
    return list(from_json((output / "contradicted.json").read_bytes(), dict[str, Any])["rows"])


def test_the_training_set_reads_like_the_training_data(project: Settings, tmp_path: Path) -> None:
    """The same columns and types, old rows first, then all new labels but the newest."""
    truth = MEANINGS[TRAFFIC]
    ids = log_traffic(project, truth, truth, unlabelled=100)
    journal = Journal(project.journal_path, "digits", Task.CLASSIFICATION)
    journal.quarantine(ids[100:150], "a bug", key="check-1", now=START)
    assert run_job("dataset", tmp_path / "job", spec_of(project, tmp_path / "out")) == 0
    result = read_result(tmp_path / "job", DatasetResult)
    assert result is not None
    train, holdout = (
        pq.read_table(tmp_path / "out" / f"{n}.parquet") for n in ("train", "holdout")
    )
    assert train.schema.equals(pa.Schema.from_pandas(table(OLD), preserve_index=False))
    assert holdout.schema == train.schema
    assert (result.new_rows, result.holdout_rows) == (315, 135)
    assert train.num_rows == result.train_rows == 800 + 315
    assert train["target"].to_pylist() == [*MEANINGS[OLD], *truth[150:465]]
    assert holdout["target"].to_pylist() == list(truth[465:])
    assert holdout["p10"].to_pylist() == list(PIXELS[TRAFFIC][465:, 10])
    assert result.dropped_rows == result.contradicted_test_rows == 0


def test_the_next_training_set_adds_what_is_new(project: Settings, tmp_path: Path) -> None:
    """The kept rows become free, late labels come in, and no row comes twice."""
    truth = MEANINGS[TRAFFIC]
    log_traffic(project, truth, truth, unlabelled=50)
    first = build(spec_of(project, tmp_path / "1", until_us=at(299.5)))
    assert (first.new_rows, first.holdout_rows) == (150, 100)
    journal = Journal(project.journal_path, "digits", Task.CLASSIFICATION)
    late = [label(i, truth[i], timedelta(seconds=400)) for i in range(50)]
    journal.add_labels(late, writer_id="import", now=START + timedelta(seconds=450))
    second = spec_of(
        project,
        tmp_path / "2",
        base_train=str(tmp_path / "1" / "train.parquet"),
        base_holdout=str(tmp_path / "1" / "holdout.parquet"),
    )
    for since in (at(299.5), None):  # None: the first one left word of it
        result = build(replace(second, since_us=since))
        assert result.new_rows + result.holdout_rows == 300 + 50
        assert result.train_rows == 800 + 250 + result.new_rows


def test_labels_imported_at_night_are_new_the_day_after(project: Settings, tmp_path: Path) -> None:
    """A label counts from when it was known: its own time, minutes after its row, was long over
    when it came, and its row is older than any window."""
    truth = MEANINGS[TRAFFIC]
    log_traffic(project, truth, truth, unlabelled=50)
    day = 86_400
    first = build(spec_of(project, tmp_path / "1", until_us=at(10 * day)))
    assert first.new_rows + first.holdout_rows == 550
    journal = Journal(project.journal_path, "digits", Task.CLASSIFICATION)
    own = [label(i, truth[i], timedelta(seconds=300)) for i in range(50)]
    journal.add_labels(own, writer_id="import", now=START + timedelta(days=10.5))
    again = build(spec_of(project, tmp_path / "2", since_us=at(10 * day), until_us=at(10.2 * day)))
    assert again.new_rows + again.holdout_rows == 0
    second = build(spec_of(project, tmp_path / "3", since_us=at(10 * day), until_us=at(11 * day)))
    assert second.new_rows + second.holdout_rows == 50


def test_late_labels_of_rows_that_are_kept_no_longer_are_not_looked_for(
    project: Settings, tmp_path: Path
) -> None:
    """So far back as `journal.keep`, not as far as some label reaches, though the rows be there."""
    truth = MEANINGS[TRAFFIC]
    log_traffic(project, truth, truth, unlabelled=50)
    journal = Journal(project.journal_path, "digits", Task.CLASSIFICATION)
    own = [label(i, truth[i]) for i in range(50)]
    journal.add_labels(own, writer_id="import", now=START + timedelta(days=10.5))
    toml = tmp_path / "homeostat.toml"
    begun, day = toml.read_text(), 86_400
    late = spec_of(project, tmp_path / "out", since_us=at(10 * day), until_us=at(11 * day))
    for keep, expected in (("12d", 50), ("10d", 0), ("0s", 50)):
        toml.write_text(f'{begun}[journal]\nkeep = "{keep}"\n')
        result = build(late)
        assert result.new_rows + result.holdout_rows == expected
    toml.write_text(f'{begun}[journal]\nkeep = "{11 * day - 25}s"\n')
    result = build(late)
    assert result.new_rows + result.holdout_rows == 25


def test_labels_that_have_not_matured_wait(project: Settings, tmp_path: Path) -> None:
    """Rows younger than the label delay are left for the next time."""
    log_traffic(project, MEANINGS[TRAFFIC], MEANINGS[TRAFFIC])
    toml = tmp_path / "homeostat.toml"
    toml.write_text(toml.read_text() + '[monitor]\nlabel_delay = "5m"\n')
    result = build(spec_of(project, tmp_path / "out"))
    assert result.new_rows + result.holdout_rows == 301


def test_a_first_version_is_trained_on_the_training_data(project: Settings, tmp_path: Path) -> None:
    """As it is; a CSV file does as well."""
    table(OLD).to_csv(tmp_path / "train.csv", index=False)
    toml = tmp_path / "homeostat.toml"
    toml.write_text(toml.read_text().replace('"train.parquet"', '"train.csv"'))
    result = build(spec_of(project, tmp_path / "out", spec=None))
    assert (result.train_rows, result.new_rows, result.holdout_rows) == (800, 0, 0)
    train = pd.read_parquet(tmp_path / "out" / "train.parquet")
    pd.testing.assert_frame_equal(train, table(OLD), check_dtype=False)


def test_under_concept_drift_contradicted_rows_leave(project: Settings, tmp_path: Path) -> None:
    """Old rows of the classes that changed go, test rows are noted, and stay noted later."""
    truth = MEANINGS[TRAFFIC]
    now = np.where(np.arange(600) < 200, truth, swapped(truth))  # the change comes in the window
    log_traffic(project, now, truth)
    job = spec_of(project, tmp_path / "out", verdict_kind=VerdictKind.CONCEPT_DRIFT)
    result = build(job)
    train = pd.read_parquet(tmp_path / "out" / "train.parquet")
    old = [*MEANINGS[OLD], *truth[:200]]
    changed = sum(meaning in (3, 8) for meaning in old)
    assert abs(result.dropped_rows - changed) < 0.15 * changed
    assert result.holdout_rows == 120, "three in ten of the 400 rows from after the change"
    assert train.shape[0] == 800 + 480 - result.dropped_rows
    noted = contradicted_rows(tmp_path / "out")
    right = np.isin(MEANINGS[TEST][noted], [3, 8])
    assert right.sum() > 0.9 * np.isin(MEANINGS[TEST], [3, 8]).sum()
    assert (~right).sum() < 0.02 * 300
    kept = tmp_path / "out" / "contradicted.json"
    later = spec_of(project, tmp_path / "later", base_contradicted=str(kept), since_us=at(601))
    assert build(later).contradicted_test_rows == len(noted)
    table(slice(900, 1100)).to_parquet(project.project / "test.parquet")  # another test set
    assert build(replace(later, output=str(tmp_path / "3"))) is not None
    assert contradicted_rows(tmp_path / "3") == []


def traced(path: Path) -> list[tuple[str | None, str | None]]:
    found = traces.read_trace(path)
    return list(zip(found["prediction_id"].to_pylist(), found["key"].to_pylist(), strict=True))


def test_training_sets_say_which_rows_of_the_log_they_hold(
    project: Settings, tmp_path: Path
) -> None:
    """Also those that came by way of an earlier training set or its holdout, and without them
    once they were forgotten there."""
    truth = MEANINGS[TRAFFIC]
    ids = log_traffic(project, truth, truth, unlabelled=100)
    build(spec_of(project, tmp_path / "1", until_us=at(399.5)))
    train, holdout = (tmp_path / "1" / f"{name}.parquet" for name in ("train", "holdout"))
    assert traced(train) == [(None, None)] * 800 + [(each, None) for each in ids[100:300]]
    assert traced(holdout) == [(each, None) for each in ids[300:400]]
    assert traces.without(train, ids=ids[100:110]) == 10
    assert traces.without(holdout, ids=[ids[300]]) == 1
    second = spec_of(
        project,
        tmp_path / "2",
        base_train=str(train),
        base_holdout=str(holdout),
        since_us=at(399.5),
    )
    build(second)
    rows = pq.read_table(tmp_path / "2" / "train.parquet").to_pandas()
    trace = [each for each, _ in traced(tmp_path / "2" / "train.parquet")]
    assert trace[:800] == [None] * 800
    assert trace[800:1089] == [*ids[110:300], *ids[301:400]]
    places = [int(str(each).removeprefix("row-")) for each in trace[800:]]
    assert rows["target"].tolist()[800:] == truth[places].tolist()
    assert rows["p10"].tolist()[800:] == PIXELS[TRAFFIC][places, 10].tolist()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ('inputs = "descriptors"', r'\[journal\] inputs = "descriptors"'),
        ('inputs = "none"', r'\[journal\] inputs = "none"'),
        ('redact = ["p3"]', r"takes p3, .* \(\[journal\] redact\)"),
        ('hash = ["p5"]\nhash_key_env = "KEY"', r"takes p5, .* \(\[journal\] hash\)"),
    ],
)
def test_what_the_log_does_not_hold_cannot_be_trained_on(
    project: Settings, tmp_path: Path, setting: str, says: str
) -> None:
    """The error says which setting keeps it out; a first version needs no log."""
    toml = tmp_path / "homeostat.toml"
    toml.write_text(f"{toml.read_text()}[journal]\n{setting}\n")
    with pytest.raises(NotReady, match=says):
        build(spec_of(project, tmp_path / "out"))
    assert build(spec_of(project, tmp_path / "first", spec=None)).train_rows == 800


@pytest.mark.parametrize(
    "recording", [Recording(inputs="none"), Recording(redact=frozenset(["p3"]))]
)
def test_rows_logged_without_inputs_are_not_trained_on(
    project: Settings, tmp_path: Path, recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    """Settings change; what was logged before they did stays as it is, and a pixel that was left
    out is no pixel without a value."""
    truth = MEANINGS[TRAFFIC]
    log_traffic(project, truth, truth, recording=recording)
    assert build(spec_of(project, tmp_path / "out")).new_rows == 0
    assert "600 rows were logged without all of their inputs" in caplog.text


def test_a_project_without_training_data_is_told_so(project: Settings, tmp_path: Path) -> None:
    """The job's result is the error, its exit status 1."""
    toml = tmp_path / "homeostat.toml"
    toml.write_text(toml.read_text().replace('training_data = "train.parquet"', ""))
    assert run_job("dataset", tmp_path / "job", spec_of(project, tmp_path / "out")) == 1
    with pytest.raises(JobError, match="training_data"):
        read_result(tmp_path / "job", DatasetResult)


@dataclass(frozen=True)
class Versions:
    settings: Settings
    champion: VersionRef
    retrained: VersionRef


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    """A champion, and one trained after the meaning of two digits changed."""
    folder = tmp_path_factory.mktemp("project")
    settings = make_project(folder)
    truth = MEANINGS[TRAFFIC]
    log_traffic(settings, swapped(truth), truth)
    job = spec_of(settings, folder / "drift", verdict_kind=VerdictKind.CONCEPT_DRIFT)
    build(job)
    build(spec_of(settings, folder / "first", spec=None))
    drifted = folder / "drift" / "train.parquet"
    return Versions(
        settings=settings,
        champion=trained(settings, folder / "train.parquet", "champion"),
        retrained=trained(settings, drifted, "retrained"),
    )


def trained(settings: Settings, train: Path, tag: str) -> VersionRef:
    """What the loop does: run the program, find its model, register it, fetch it."""
    registry = Registry(settings)
    registry.prepare()
    run = Run(
        run_id=tag,
        model="digits",
        decision_id="d",
        action=Action.RETRAIN,
        stage=Stage.TRAINING,
        created_at=START,
        updated_at=START,
    )
    done = subprocess.run(
        command_line(settings, run, train, settings.home / "scratch"),
        env=environment(os.environ, settings, tag, "digits", settings.tracking_uri),
        cwd=settings.project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    logged = registry.find_model(tag)
    assert logged is not None
    return registry.fetch(registry.register(logged, tag), feature_names=NAMES)


def gated(
    versions: Versions, job_folder: Path, candidate: VersionRef, champion: VersionRef | None
) -> GateReport:
    job = GateJob(
        run_id="run-1",
        project=str(versions.settings.project),
        output=str(versions.settings.project / ("drift" if champion else "first")),
        candidate=candidate,
        champion=champion,
        verdict_kind=VerdictKind.CONCEPT_DRIFT if champion else None,
    )
    run_job("gate", job_folder, job)
    result = read_result(job_folder, GateResult)
    assert result is not None
    return result.report


def test_a_first_version_passes_its_gate_and_leaves_a_reference(
    versions: Versions, tmp_path: Path
) -> None:
    """The reference holds what it was trained on, with its own answers."""
    report = gated(versions, tmp_path / "job", versions.champion, None)
    assert report.outcome is GateOutcome.PASS, report.reason
    assert report.candidate_test is not None
    assert report.candidate_test > 0.85
    assert report.baseline_error == pytest.approx(1 - report.candidate_test)
    output = versions.settings.project / "first"
    assert from_json((output / "gate.json").read_bytes(), GateReport) == report
    reference = pd.read_parquet(output / "reference.parquet")
    assert list(reference) == [*NAMES, PREDICTION, LABEL]
    assert len(reference) == 800
    assert reference[LABEL].tolist() == [str(m) for m in MEANINGS[OLD]]
    assert (reference[PREDICTION] == reference[LABEL]).mean() > 0.9


def test_after_a_change_of_meaning_the_retrained_version_passes(
    versions: Versions, tmp_path: Path
) -> None:
    """Test rows that newer labels contradict do not defend the old champion."""
    report = gated(versions, tmp_path / "job", versions.retrained, versions.champion)
    assert report.outcome is GateOutcome.PASS, report.reason
    assert report.contradicted_rows > 30
    assert report.candidate_holdout is not None
    assert report.champion_holdout is not None
    assert report.candidate_holdout > report.champion_holdout + 0.05
    names = {check.name for check in report.checks}
    assert {"latency", "size", "calibration (newest labels)", "churn (test set)"} <= names


def test_a_worse_candidate_is_turned_away(versions: Versions, tmp_path: Path) -> None:
    """The old champion would not come back through the gate; the reason has figures."""
    report = gated(versions, tmp_path / "job", versions.champion, versions.retrained)
    assert report.outcome is GateOutcome.FAIL
    assert "not shown to be better on 180 rows" in report.reason


def test_a_version_the_log_cannot_hold_is_turned_away(
    versions: Versions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its gate, in a line of the report; and an alias that is moved to it is not followed."""
    monkeypatch.setenv("HOMEOSTAT_JOURNAL_PATH", str(tmp_path / "log"))
    settings = settings_module.load(versions.settings.project, os.environ)
    writer = JournalWriter(
        url=settings.journal_path,
        spool=tmp_path / "spool",
        model="digits",
        task=Task.REGRESSION,  # answers that are numbers
        writer_id="test",
        durability="spool",
        commit_every=timedelta(hours=1),
        commit_bytes=10**9,
        clock=lambda: START,
    )
    writer.start()
    writer.append(
        PredictionBatch(
            ids=["a"],
            time_us=at(0),
            version="1",
            features=NAMES,
            matrix=PIXELS[:1],
            tensor=True,
            predictions=[1.5],
            latency_us=1,
        )
    )
    writer.close()
    report = gated(versions, tmp_path / "job", versions.retrained, versions.champion)
    assert report.outcome is GateOutcome.FAIL
    assert "prediction: numbers in the log, text in the version" in report.reason
    assert [check.passed for check in report.checks if check.name == "prediction log"] == [False]
    context = open_context(settings, os.environ, preload=False)
    client = MlflowClient(settings.tracking_uri)
    client.set_registered_model_alias("digits", "champion", versions.retrained.version)
    for _ in range(2):
        with pytest.raises(NotReady, match="would not fit the prediction log"):
            releasing.mirror_aliases(context, START)
    with context.state.begin() as tx:
        assert rollouts.current(tx, "digits") is None
        (told,) = events.newest(tx, "digits")  # once, however often it is looked at
    assert (told.type, told.data["version"]) == (types.MODEL_REFUSED, versions.retrained.version)
    assert "prediction: numbers in the log" in told.data["reason"]
    context.state.close()
    context.executor.close()


def test_changed_files_meet_no_gate(versions: Versions, tmp_path: Path) -> None:
    """A candidate whose files are not those that were registered is an error, not a report."""
    entry = cache.entry_path(versions.settings.cache_path, "digits", versions.retrained.version)
    victim = next(path for path in sorted(cache.model_folder(entry).rglob("*")) if path.is_file())
    victim.write_bytes(victim.read_bytes() + b" ")
    with pytest.raises(JobError, match="changed"):
        gated(versions, tmp_path / "job", versions.retrained, versions.champion)
