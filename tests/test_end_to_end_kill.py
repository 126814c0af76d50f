"""kill -9 the loop wherever it stands: it goes on from there, and promotes once."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import project_kit as kit
import pytest
from hold_kit import hold

from homeostat.records import Stage
from homeostat.settings import load
from homeostat.state import runs
from homeostat.state.store import open_state

# The first attempt never gets further.
HANGS_ONCE = """
import os, time
while '.1"' in os.environ["MLFLOW_RUN_CONTEXT"]:
    time.sleep(0.1)
"""


@pytest.mark.timeout(400)
def test_killed_at_every_stage_it_promotes_once(tmp_path: Path) -> None:
    """Killed while it builds, trains, and between registration and promotion. It gets no further by
    itself: the job of the first and of the last of these stages does not begin."""
    project = kit.make_project(tmp_path / "cancer", checks=False)
    (project / "train.py").write_text(HANGS_ONCE + kit.TRAINING)
    settings = project / "homeostat.toml"
    settings.write_text(settings.read_text().replace('time_limit = "60s"', 'time_limit = "5m"'))
    for stage, held in (
        (Stage.PLANNED, "-m retrain dataset "),
        (Stage.TRAINING, "nothing"),
        (Stage.GATING, "-m retrain gate "),
    ):
        process = kit.start(project, "loop", kit.environ(**hold(tmp_path / stage, held)))
        try:
            kit.until(f"stage {stage}", partial(_is_at, project, stage))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    with kit.running(project, "loop"):
        kit.until("a promotion", partial(_is_at, project, Stage.PROMOTED))
    status = kit.status(project)
    assert [rollout.epoch for rollout in status.rollouts] == [1]
    assert len(status.runs) == 1
    assert status.runs[0].attempt == 2, "the training that was cut off was begun once more"
    assert [e.type for e in status.events].count("model.promoted") == 1
    assert _versions(project) == [kit.present(status.rollout).champion.version]


def _is_at(project: Path, stage: Stage) -> bool:
    if not (project / ".homeostat" / "state.db").exists():
        return False
    if stage is Stage.TRAINING and not list(project.glob(".homeostat/jobs/*-train-1/output.log")):
        return False  # the program itself has to be running
    settings = load(project, {})
    state = open_state(settings.state_url)
    with state.begin() as tx:
        found = runs.newest(tx, settings.model.name, 1)
    state.close()
    return bool(found) and found[0].stage is stage


def _versions(project: Path) -> list[str]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/.homeostat/mlflow.db")
    return [str(v.version) for v in client.search_model_versions("name = 'cancer'")]
