"""`python -m bench.pyfunc_project FOLDER`: a scikit-learn model, and a project around it.

A process of its own, like bench.model_project: it imports MLflow. The model lies in FOLDER/model as
MLflow saved it, for `mlflow models serve`, and in the project's cache for our server.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

from bench.model_project import TOML, publish
from homeostat.records import Task, VersionRef, to_json
from homeostat.registry.cache import SPEC_FILE, digest_of, entry_path, hash_files, model_folder
from homeostat.registry.signature import spec_of
from homeostat.settings import load

FEATURES, ROWS = 32, 2000


def write(folder: Path) -> None:
    random = np.random.default_rng(0)
    names = [f"x{i}" for i in range(FEATURES)]
    table = pd.DataFrame(random.standard_normal((ROWS, FEATURES)).round(4), columns=names)
    target = (table.sum(axis=1) > 0).astype(int) + (table["x0"] > 1).astype(int)
    model = LogisticRegression(max_iter=500).fit(table, target)
    saved = folder / "model"
    signature = infer_signature(table, model.predict(table))
    mlflow.sklearn.save_model(model, saved, signature=signature)
    row = table.iloc[0].tolist()
    said = {"request": {"rows": [row]}, "prediction": int(model.predict(table.iloc[:1])[0])}
    (folder / "example.json").write_text(json.dumps(said))
    (folder / "homeostat.toml").write_text(TOML)
    settings = load(folder, {})
    entry = entry_path(settings.cache_path, settings.model.name, "1")
    shutil.copytree(saved, model_folder(entry))
    spec = spec_of(
        model_folder(entry),
        model=settings.model.name,
        version="1",
        task=Task.CLASSIFICATION,
        names=(),
    )
    spec = replace(spec, files=hash_files(model_folder(entry)))
    (entry / SPEC_FILE).write_bytes(to_json(spec))
    publish(settings, VersionRef(version="1", digest=digest_of(spec)), epoch=1)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
