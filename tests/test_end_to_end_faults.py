"""What goes wrong outside costs a run or a wait, never the version that serves."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import project_kit as kit
import pytest

from homeostat.client import Client


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose first version serves; from then on with a short limit for training programs,
    of which none has much to do."""
    folder = kit.make_project(tmp_path_factory.mktemp("faults") / "cancer")
    with kit.running(folder, "up"):
        kit.until("the first version", lambda: serves(folder))
    text = (folder / "homeostat.toml").read_text()
    text = text.replace('time_limit = "60s"', 'time_limit = "20s"')
    (folder / "homeostat.toml").write_text(text)
    with kit.running(folder, "up"):
        kit.until("it again", lambda: serves(folder))
        yield folder


def serves(project: Path) -> bool:
    server = kit.address(project, "serving")
    if server is None:
        return False
    with Client(server) as client:
        return client.ready()


@pytest.mark.parametrize(
    ("program", "error", "last_words"),
    [
        ("print('deep trouble'); raise SystemExit(3)", "exited with status 3", "deep trouble"),
        ("print('dozing', flush=True); import time; time.sleep(600)", "time limit", "dozing"),
        ("print('all done')", "logged no model", "all done"),
        ("import os; print(sorted(os.environ)); raise SystemExit(1)", "status 1", "MLFLOW_RUN"),
    ],
)
def test_a_program_that_fails_leaves_the_champion(
    project: Path, program: str, error: str, last_words: str
) -> None:
    """A crash, a hang and a missing model: a failed run with the last lines in its event."""
    env = kit.environ(MY_PASSWORD="hunter2")
    done = kit.homeostat(project, "retrain", "--", "python", "-c", program, env=env)
    assert done.returncode == 1
    status = kit.status(project)
    assert status.runs[0].stage == "failed"
    assert error in kit.present(status.runs[0].error)
    event = next(e for e in status.events if e.type == "retrain.failed")
    assert last_words in event.data["tail"]
    assert "MY_PASSWORD" not in event.data["tail"]
    assert kit.present(status.rollout).epoch == 1
    with Client(kit.present(kit.address(project, "serving"))) as client:
        assert client.models()[0]["serving"]["version"] == "1"


def test_the_server_answers_while_the_state_database_is_away(project: Path) -> None:
    """Somebody holds the database: the loop says so and goes on when it is back."""
    database = project / ".homeostat" / "state.db"
    log = project / ".homeostat" / "logs" / "loop.log"
    before = log.read_text().count("Waiting: the state database")
    holder = sqlite3.connect(database, timeout=60, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        kit.until(
            "a word in the log",
            lambda: log.read_text().count("Waiting: the state database") > before,
        )
        row = kit.records(kit.rows(1).drop(columns=kit.TARGET).head(1))
        with Client(kit.present(kit.address(project, "serving"))) as client:
            assert client.predict(row).version == "1"
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    checks = len(kit.status(project).checks)
    kit.until("another check", lambda: len(kit.status(project).checks) > checks)


def test_the_loop_waits_for_mlflow(tmp_path: Path) -> None:
    """With MLflow away a run waits at its stage and tells for what; it is not failed."""
    project = kit.make_project(tmp_path / "cancer", checks=False)
    text = (project / "homeostat.toml").read_text()
    away = 'ui = false\ntracking_uri = "http://127.0.0.1:9"'
    (project / "homeostat.toml").write_text(text.replace("ui = false", away))
    with kit.running(project, "loop"):
        run = kit.until(
            "a waiting run",
            lambda: next((r for r in kit.glance(project).runs if r.waiting_for), None),
        )
        assert run.stage == "training"
        assert "127.0.0.1:9" in kit.present(run.waiting_for)
        (project / "homeostat.toml").write_text(text)
    with kit.running(project, "loop"):
        kit.until("a promotion", lambda: kit.glance(project).rollout)
