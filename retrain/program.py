"""The user's training program: its command line, and the little of our environment it sees."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from homeostat.errors import SettingsError
from homeostat.records import Run
from homeostat.settings import FILE_NAME, Settings

RUN_TAG = "homeostat.run"  # the MLflow tag by which a program's run is found again

# What a program needs to run at all; everything else, keys and passwords first, stays out.
_PASSED = (
    "HOME",
    "LANG",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z_0-9]*)\}")
_PYTHON = re.compile(r"python(3(\.\d+)?)?")


def command_line(settings: Settings, run: Run, train: Path, output: Path) -> tuple[str, ...]:
    """The command of this run with {train} and {output} filled in; python is this environment's.

    Raises SettingsError for an unknown placeholder, or where there is no command.
    """
    command = run.command or settings.retrain.command
    if not command:
        raise _error(settings, "no training program; give one such as "
                     '["python", "train.py", "--data", "{train}"]')  # fmt: skip
    values = {"train": str(train), "output": str(output)}

    def fill(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise _error(
                settings, f"unknown placeholder {match[0]}; known are {{train}}, {{output}}"
            )
        return values[match[1]]

    program, *arguments = (_PLACEHOLDER.sub(fill, part) for part in command)
    return (sys.executable if _PYTHON.fullmatch(program) else program, *arguments)


def environment(
    parent: Mapping[str, str], settings: Settings, tag: str, experiment: str, tracking_uri: str
) -> dict[str, str]:
    """The program's whole environment: an allow-list of ours, and how MLflow is to be reached.

    The tag travels in MLFLOW_RUN_CONTEXT, which MLflow puts on every run the program starts,
    whatever experiment it sets; MLFLOW_RUN_ID would make `mlflow.set_experiment` fail.
    """
    names = {*_PASSED, *settings.retrain.env}
    names.update(name for name in parent if name.startswith("LC_"))
    child = {name: parent[name] for name in sorted(names) if name in parent}
    ours = str(Path(sys.executable).parent)
    child["PATH"] = f"{ours}:{parent['PATH']}" if parent.get("PATH") else ours
    child["PYTHONUNBUFFERED"] = "1"  # the last lines are wanted even when it has to be killed
    child["MLFLOW_TRACKING_URI"] = tracking_uri
    if settings.registry.tracking_uri is None:
        # Else an experiment that the program makes keeps its files in the folder it runs in.
        child["_MLFLOW_SERVER_ARTIFACT_ROOT"] = settings.artifacts_path.as_uri()
    child["MLFLOW_EXPERIMENT_NAME"] = experiment
    child["MLFLOW_RUN_CONTEXT"] = msgspec.json.encode({RUN_TAG: tag}).decode()
    return child


def _error(settings: Settings, message: str) -> SettingsError:
    return SettingsError(message, file=str(settings.project / FILE_NAME), key="retrain.command")
