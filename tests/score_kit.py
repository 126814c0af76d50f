"""Projects to score with, rows to score, and the command run to its end."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from click.testing import CliRunner
from serving_kit import FEATURES, add_version, make_project, publish

from homeostat.errors import HomeostatError
from homeostat.records import Feature, FeatureKind, ModelSpec, Task, VersionRef, to_json
from homeostat.registry.cache import SPEC_FILE, digest_of, entry_path, hash_files, model_folder
from homeostat.settings import Settings, load
from loop.cli import cli

__all__ = ["FEATURES", "Scored", "columns_project", "frame", "score", "shapes_project"]


@dataclass(frozen=True)
class Scored:
    status: int
    text: str
    error: str
    bad: list[dict[str, str]]


def shapes_project(
    folder: Path, text: str = "", *, champion: int | None = 1, runtime: str = "torch"
) -> Settings:
    settings = make_project(folder, text)
    refs = {number: add_version(settings, number, runtime=runtime) for number in (1, 2)}
    if champion is not None:
        publish(settings, refs[champion], epoch=1)
    return settings


def columns_project(folder: Path) -> Settings:
    """Its version 1 is a pipeline of scikit-learn, saved by MLflow."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "homeostat.toml").write_text('[model]\nname = "colours"\n')
    settings = load(folder, {})
    entry = entry_path(settings.cache_path, "colours", "1")
    entry.mkdir(parents=True)
    program = Path(__file__).with_name("score_program.py")
    command = [sys.executable, str(program), str(model_folder(entry))]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    spec = ModelSpec(
        model="colours",
        version="1",
        runtime="pyfunc",
        task=Task.CLASSIFICATION,
        features=(
            Feature(name="count", integer=True),
            Feature(name="width"),
            Feature(name="colour", kind=FeatureKind.CATEGORY),
        ),
        files=hash_files(model_folder(entry)),
    )
    (entry / SPEC_FILE).write_bytes(to_json(spec))
    publish(settings, VersionRef(version="1", digest=digest_of(spec)), epoch=1)
    return settings


def frame(count: int, seed: int = 0) -> Any:
    """Rows of the four features and a column that is nobody's."""
    random = np.random.default_rng(seed)
    found = {name: random.standard_normal(count).astype(np.float32) for name in FEATURES}
    return pa.table({**found, "note": [f"row {i}" for i in range(count)]})


def score(settings: Settings, source: object, target: Path, *options: str) -> Scored:
    """In this process, on one core's worth of work."""
    arguments = ["--project", str(settings.project), "score", str(source), str(target), *options]
    done = CliRunner().invoke(cli, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        if not isinstance(done.exception, HomeostatError):
            raise done.exception
        return Scored(1, done.output, str(done.exception), [])
    return Scored(done.exit_code, done.output, done.output, _bad(target))


def command_of(settings: Settings, source: object, target: Path, *options: str) -> list[str]:
    ours = ["--project", str(settings.project), "score", str(source), str(target), *options]
    return [sys.executable, "-P", "-m", "loop", *ours]


def score_process(settings: Settings, source: object, target: Path, *options: str) -> Scored:
    """As a user runs it."""
    command = command_of(settings, source, target, *options)
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=os.environ)
    return Scored(done.returncode, done.stdout, done.stderr, _bad(target))


def _bad(target: Path) -> list[dict[str, str]]:
    path = target.with_name(f"{target.name}.score") / "bad_rows.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
