"""The user's training program: its command line, its environment, its run in MLflow."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from homeostat import settings as settings_module
from homeostat.errors import SettingsError
from homeostat.records import Action, Run, Stage
from homeostat.registry.mlflow_registry import Registry
from homeostat.settings import Settings
from retrain.program import command_line, environment

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
RUN = Run(
    run_id="run-1",
    model="digits",
    decision_id="d",
    action=Action.RETRAIN,
    stage=Stage.TRAINING,
    created_at=NOW,
    updated_at=NOW,
)
TOML = """
[model]
name = "digits"
[retrain]
command = ["python", "train.py", "--data={train}", "--out", "{output}", "--params", '{"a": 1}']
env = ["WANTED", "ABSENT"]
"""
# What an existing training script looks like; it chooses its experiment itself.
SCRIPT = """
import sys, mlflow
mlflow.set_experiment("of-my-own")
with mlflow.start_run():
    mlflow.log_param("data", sys.argv[1])
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "homeostat.toml").write_text(TOML)
    return settings_module.load(tmp_path, {})


def test_the_command_line_is_filled_in(settings: Settings) -> None:
    """Other braces stay, and python is the one that runs the platform."""
    filled = command_line(settings, RUN, Path("/x/train.parquet"), Path("/x/out"))
    expected = ("train.py", "--data=/x/train.parquet", "--out", "/x/out", "--params", '{"a": 1}')
    assert filled == (sys.executable, *expected)


def test_a_run_may_bring_its_own_command(settings: Settings) -> None:
    """Instead of the one in the settings; a program by another name is left alone."""
    run = replace(RUN, command=("./train", "{train}"))
    assert command_line(settings, run, Path("t"), Path("o")) == ("./train", "t")


@pytest.mark.parametrize("command", [("python", "{data}"), ()])
def test_a_wrong_command_is_a_settings_error(settings: Settings, command: tuple[str, ...]) -> None:
    """It names the file and the key."""
    wrong = replace(settings, retrain=replace(settings.retrain, command=command))
    with pytest.raises(SettingsError, match=r"homeostat\.toml: retrain\.command"):
        command_line(wrong, RUN, Path("t"), Path("o"))


def test_the_program_sees_no_secrets(settings: Settings) -> None:
    """Only what is on the list, what the project named, and how to reach MLflow."""
    parent = {
        "PATH": "/usr/bin",
        "HOME": "/home/ada",
        "LC_ALL": "C.UTF-8",
        "WANTED": "yes",
        "HOMEOSTAT_WEBHOOK_SECRET": "whsec_x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "MLFLOW_RUN_ID": "x",
        "PYTHONSAFEPATH": "1",
    }
    child = environment(parent, settings, "run-1.2", "digits", "sqlite:///m.db")
    assert child == {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin",
        "HOME": "/home/ada",
        "LC_ALL": "C.UTF-8",
        "WANTED": "yes",
        "PYTHONUNBUFFERED": "1",
        "MLFLOW_TRACKING_URI": "sqlite:///m.db",
        "MLFLOW_EXPERIMENT_NAME": "digits",
        "MLFLOW_RUN_CONTEXT": '{"homeostat.run":"run-1.2"}',
        "_MLFLOW_SERVER_ARTIFACT_ROOT": settings.artifacts_path.as_uri(),
    }


def test_the_run_of_an_existing_script_is_found_again(settings: Settings, tmp_path: Path) -> None:
    """Although it sets an experiment of its own and knows nothing of the platform."""
    (tmp_path / "train.py").write_text(SCRIPT)
    run = replace(RUN, command=("python", "train.py", "{train}"))
    Registry(settings).prepare()
    done = subprocess.run(
        command_line(settings, run, tmp_path / "train.parquet", tmp_path / "out"),
        env=environment(os.environ, settings, "run-1.1", "digits", settings.tracking_uri),
        cwd=settings.project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = Registry(settings).find_model("run-1.1")
    assert found is not None
    assert found.status == "FINISHED"
    assert found.model_uri is None  # it logged none, and that can be told
    assert Registry(settings).find_model("run-1.2") is None
