"""Models that a user's program logged: one MLflow on SQLite for every test that needs one."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from homeostat import settings as settings_module
from homeostat.settings import Settings

PROGRAM = Path(__file__).parent / "registry_program.py"
DATABASE, SAID = "mlflow.db", "models.json"
# The program tags its runs run-digits and so on.
TAGS = ("digits", "digits-one-row", "iris", "colours", "prices", "pickled", "checkpoints", "empty")


@dataclass(frozen=True)
class LoggedModels:
    """A project whose MLflow holds a run for each of TAGS."""

    home: Path
    models: dict[str, str]  # by tag: the model id the program saw

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.home / DATABASE}"

    def settings(self, project: Path, *, model: str = "digits", more: str = "") -> Settings:
        """Settings of a fresh project that shares this MLflow, with a cache of its own."""
        project.mkdir(parents=True, exist_ok=True)
        (project / "homeostat.toml").write_text(
            f'[model]\nname = "{model}"\n{more}\n[registry]\ntracking_uri = "{self.uri}"\n'
        )
        return settings_module.load(project, {})


@pytest.fixture(scope="session")
def logged_models(tmp_path_factory: pytest.TempPathFactory) -> LoggedModels:
    """Logged once, by the first of the processes among which the tests are spread. Each has a
    database of its own; the files lie where they were logged."""
    mine = tmp_path_factory.mktemp("mlflow")
    if "PYTEST_XDIST_WORKER" not in os.environ:
        _log(mine)
        return _logged(mine)
    shared = tmp_path_factory.getbasetemp().parent / "mlflow"
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / SAID).exists():
            shared.mkdir(exist_ok=True)
            _log(shared)
    for name in (DATABASE, SAID):
        shutil.copy(shared / name, mine)
    return _logged(mine)


def _log(home: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / DATABASE}",
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


def _logged(home: Path) -> LoggedModels:
    return LoggedModels(home, json.loads((home / SAID).read_text()))
