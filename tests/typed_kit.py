"""A pyfunc model of named columns, one of 32 bits and one boolean, in a project's cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from homeostat.jobs import write_atomically
from homeostat.records import Task, VersionRef, to_json
from homeostat.registry.cache import SPEC_FILE, digest_of, entry_path, hash_files, model_folder
from homeostat.registry.signature import spec_of
from homeostat.settings import Settings, load

MODEL = "typed"
COLUMNS = [ColSpec("integer", "count"), ColSpec("boolean", "sure"), ColSpec("double", "width")]
PROGRAM = """
import mlflow
import numpy as np


class Typed(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        assert model_input["sure"].dtype == bool
        {first}
        return np.where(model_input["sure"], "yes", "no")


mlflow.models.set_model(Typed())
"""


def typed_project(folder: Path, text: str = "") -> Settings:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "homeostat.toml").write_text(f'[model]\nname = "{MODEL}"\n{text}')
    return load(folder, {})


def add_typed(settings: Settings, version: str = "1", first: str = "") -> VersionRef:
    """It says yes where the boolean is true. `first`: a line of Python before its answer."""
    entry = entry_path(settings.cache_path, MODEL, version)
    entry.mkdir(parents=True)
    program = settings.project / f"model{version}.py"
    program.write_text(PROGRAM.format(first=first))
    mlflow.pyfunc.save_model(
        model_folder(entry),
        python_model=str(program),
        signature=ModelSignature(Schema(COLUMNS), Schema([ColSpec("string")])),
        pip_requirements=["mlflow"],
    )
    files = hash_files(model_folder(entry))
    spec = spec_of(
        model_folder(entry), model=MODEL, version=version, task=Task.CLASSIFICATION, names=()
    )
    spec = replace(spec, files=files)
    write_atomically(entry / SPEC_FILE, to_json(spec))
    return VersionRef(version=version, digest=digest_of(spec))
