"""Models that a user's program logged: one MLflow on SQLite for every test that needs one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from homeostat import settings as settings_module
from homeostat.settings import Settings

PROGRAM = Path(__file__).parent / "registry_program.py"
# The program tags its runs run-digits and so on.
TAGS = ("digits", "digits-one-row", "iris", "colours", "prices", "pickled", "checkpoints", "empty")


@dataclass(frozen=True)
class LoggedModels:
    """A project whose MLflow holds a run for each of TAGS."""

    home: Path
    models: dict[str, str]  # by tag: the model id the program saw

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.home / 'mlflow.db'}"

    def settings(self, project: Path, *, model: str = "digits", more: str = "") -> Settings:
        """Settings of a fresh project that shares this MLflow, with a cache of its own."""
        project.mkdir(parents=True, exist_ok=True)
        (project / "homeostat.toml").write_text(
            f'[model]\nname = "{model}"\n{more}\n[registry]\ntracking_uri = "{self.uri}"\n'
        )
        return settings_module.load(project, {})


@pytest.fixture(scope="session")
def logged_models(tmp_path_factory: pytest.TempPathFactory) -> LoggedModels:
    home = tmp_path_factory.mktemp("mlflow")
    environment = {
        "PATH": os.environ["PATH"],
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
        "MLFLOW_EXPERIMENT_NAME": "given",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *TAGS],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return LoggedModels(home, json.loads((home / "models.json").read_text()))
