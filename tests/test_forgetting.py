"""A request to be forgotten, while a server of the project has rows on their way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import backup_kit as kit
import pyarrow as pa
import pyarrow.parquet as pq
from journal_kit import label, open_writer, tensor_rows
from mlflow import MlflowClient
from test_journal_forget import told_of

from homeostat.journal.forgetting import traces, waiting_rows
from homeostat.journal.forgetting.forget import Waiting, Wanted
from homeostat.records import Action, Decision, Run, Stage
from homeostat.registry.mlflow_registry import Registry
from homeostat.settings import Settings
from homeostat.state import runs
from homeostat.state.store import open_state
from loop import forgetting

KEY = "person-4711"
AT_ONCE = Waiting(unfinished=timedelta(0))


def forget_key(settings: Settings, at_progress: object = None) -> forgetting.Report:
    state = open_state(settings.state_url)

    def progress(what: str, done: int, total: int) -> None:
        if callable(at_progress):
            at_progress(what)

    try:
        return forgetting.forget_rows(
            settings,
            state,
            Wanted(keys=frozenset([KEY])),
            clock=lambda: datetime.now(UTC),
            progress=progress,
            waiting=AT_ONCE,
        )
    finally:
        state.close()


def test_a_label_on_its_way_is_forgotten_with_the_row_that_a_key_leads_to(tmp_path: Path) -> None:
    """It names no key, so that it is only known by the row: it is waited for before that goes."""
    settings = kit.project(tmp_path)
    server = open_writer(settings.home, url=settings.journal_path)
    server.append(tensor_rows(["secret-row", "other-row"], keys=[KEY, "somebody"]))
    server.flush()
    server.label([label("secret-row", "7"), label("other-row", "7")])
    waited: list[str] = []

    def in_its_own_time(what: str) -> None:
        """As a server does that asks for keys."""
        if what.startswith("waiting for a server"):
            waited.append(what)
            if len(waited) == 3:
                server.flush()

    report = forget_key(settings, in_its_own_time)
    server.close()
    assert len(waited) == 3
    assert {name: each.rows for name, each in report.tables.items()} == {
        "predictions": 1,
        "labels": 1,
        "quarantine": 0,
    }
    assert report.remains == ()
    assert told_of(settings.home, "secret-row") == []
    assert told_of(settings.home, KEY) == []


def test_a_key_that_is_in_use_leaves_no_label_without_its_row(tmp_path: Path) -> None:
    """A row that came after the search stays with its label, by which the next time finds both; it
    is told."""
    settings = kit.project(tmp_path)
    server = open_writer(settings.home, url=settings.journal_path)
    server.append(tensor_rows(["first-row", "other-row"], keys=[KEY, "somebody"]))
    server.label([label("first-row", "1"), label("other-row", "1")])
    server.flush()
    came: list[str] = []

    def meanwhile(what: str) -> None:
        """What is to go from the predictions was found before the labels are looked through."""
        if what == "looking through labels" and not came:
            came.append(what)
            server.append(tensor_rows(["late-row"], keys=[KEY]))
            server.label([label("late-row", "2")])
            server.flush()

    report = forget_key(settings, meanwhile)
    assert report.tables["predictions"].rows == 1
    told = "\n".join(report.remains)
    assert "The table predictions holds 1 such rows that came meanwhile" in told
    assert told_of(settings.home, "first-row") == []
    again = forget_key(settings)
    assert (again.tables["predictions"].rows, again.tables["labels"].rows) == (1, 1)
    assert again.remains == ()
    assert told_of(settings.home, "late-row") == []
    assert told_of(settings.home, KEY) == []
    assert told_of(settings.home, "other-row")
    server.close()


def reference_of_a_run(settings: Settings, mlflow_run_id: str) -> Path:
    """Three rows, one of them of the person, as a run's gate leaves them."""
    path = settings.runs_path / "run-1" / "reference.parquet"
    path.parent.mkdir(parents=True)
    table = pa.table({"x": [1.0, 2.0, 3.0]})
    traces.write_traced(path, table, [None, "secret-row", "other-row"], [None, KEY, "somebody"])
    now = datetime.now(UTC)
    state = open_state(settings.state_url)
    with state.begin() as tx:
        model, retrain = settings.model.name, Action.RETRAIN
        why = Decision(decision_id="d", model=model, action=retrain, reason="", created_at=now)
        runs.decide(tx, why)
        run = Run(
            run_id="run-1",
            model=model,
            decision_id="d",
            action=retrain,
            stage=Stage.PROMOTING,
            mlflow_run_id=mlflow_run_id,
            created_at=now,
            updated_at=now,
        )
        runs.start(tx, run)
        runs.advance(tx, run, now, stage=Stage.PROMOTED)
    state.close()
    return path


def test_the_copy_of_a_reference_in_mlflow_is_replaced(tmp_path: Path) -> None:
    """The gate's evidence is an artifact of the version's run: the row goes from it as well."""
    settings = kit.project(tmp_path)
    registry = Registry(settings)
    registry.prepare()
    client = MlflowClient(settings.tracking_uri)
    experiment = client.get_experiment_by_name(settings.model.name)
    assert experiment is not None
    mlflow_run_id = client.create_run(experiment.experiment_id).info.run_id
    path = reference_of_a_run(settings, mlflow_run_id)
    registry.log_files(mlflow_run_id, path.parent, [path.name], "homeostat")
    (copy,) = settings.artifacts_path.rglob("reference.parquet")
    assert pq.read_table(copy)["x"].to_pylist() == [1.0, 2.0, 3.0]
    report = forget_key(settings)
    assert report.files == {"runs/run-1/reference.parquet": 1}
    assert report.remains == ()
    for each in (path, copy):
        assert pq.read_table(each)["x"].to_pylist() == [1.0, 3.0]
    assert [each.name for each in copy.parent.iterdir()] == ["reference.parquet"]


def test_a_reference_is_not_forgotten_while_mlflow_is_away(tmp_path: Path) -> None:
    """Nobody would know any more that its copy holds such rows; it is told, and done later."""
    settings = kit.project(tmp_path, '[registry]\ntracking_uri = "http://127.0.0.1:9"\n')
    path = reference_of_a_run(settings, "0123456789abcdef")
    report = forget_key(settings)
    assert report.files == {}
    assert "runs/run-1/reference.parquet and its copy in MLflow are as they were" in "".join(
        report.remains
    )
    assert pq.read_table(path)["x"].to_pylist() == [1.0, 2.0, 3.0]


def test_what_came_while_rows_were_forgotten_is_told(tmp_path: Path) -> None:
    """A label of such a row in a spool, or in a table: nobody is told that all is gone."""
    settings = kit.project(tmp_path)
    server = open_writer(settings.home, url=settings.journal_path)
    server.append(tensor_rows(["secret-row"], keys=[KEY]))
    server.flush()
    server.label([label("secret-row", "1")])
    server.flush()
    came: list[str] = []

    def meanwhile(what: str) -> None:
        """Labels are erased before predictions are looked through for the deletion."""
        if what == "deleting from predictions" and not came:
            came.append(what)
            server.label([label("secret-row", "2")])
            server.flush()
            server.label([label("secret-row", "3")])

    report = forget_key(settings, meanwhile)
    assert came
    told = "\n".join(report.remains)
    assert "The table labels holds 1 such rows that came meanwhile" in told
    assert ".arrows holds such rows that came meanwhile" in told
    wanted = Wanted(ids=frozenset(["secret-row"]))
    assert waiting_rows.holding(settings.spool_path, kit.MODEL, wanted)
    server.close()
