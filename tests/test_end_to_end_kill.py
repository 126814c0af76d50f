"""kill -9 the loop wherever it stands: it goes on from there, and promotes once."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import project_kit as kit
import pytest

from homeostat.records import Stage
from homeostat.settings import load
from homeostat.state import runs
from homeostat.state.store import open_state


@pytest.mark.timeout(400)
def test_killed_at_every_stage_it_promotes_once(tmp_path: Path) -> None:
    """Killed while it builds, trains, and between registration and promotion."""
    project = kit.make_project(tmp_path / "cancer", checks=False)
    killed = []
    for stages in ((Stage.PLANNED,), (Stage.TRAINING,), (Stage.GATING, Stage.PROMOTING)):
        process = kit.start(project, "loop")
        try:
            killed.append(kit.until(f"stage {stages[0]}", partial(_stage, project, stages)))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert Stage.GATING in killed, "killed between registration and promotion"
    with kit.running(project, "loop"):
        kit.until("a promotion", lambda: _stage(project, (Stage.PROMOTED,)))
    status = kit.status(project)
    assert [rollout.epoch for rollout in status.rollouts] == [1]
    assert len(status.runs) == 1
    assert status.runs[0].attempt == 2, "the training that was cut off was begun once more"
    assert [e.type for e in status.events].count("model.promoted") == 1
    assert _versions(project) == [kit.present(status.rollout).champion.version]


def _stage(project: Path, stages: tuple[Stage, ...]) -> Stage | None:
    if not (project / ".homeostat" / "state.db").exists():
        return None
    if stages == (Stage.TRAINING,) and not list(
        project.glob(".homeostat/jobs/*-train-1/output.log")
    ):
        return None  # the program itself has to be running
    settings = load(project, {})
    state = open_state(settings.state_url)
    with state.begin() as tx:
        found = runs.newest(tx, settings.model.name, 1)
    state.close()
    return found[0].stage if found and found[0].stage in stages else None


def _versions(project: Path) -> list[str]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/.homeostat/mlflow.db")
    return [str(v.version) for v in client.search_model_versions("name = 'cancer'")]
