"""A user's training program for the tests: logs one small model for each tag it is given."""

from __future__ import annotations

import importlib
import json
import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from torch import nn

REQUIREMENTS = ["mlflow"]  # named, so that MLflow does not spend seconds on finding them
CLASSES = [f"digit {i}" for i in range(10)]
random = np.random.default_rng(7)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 16), nn.ReLU()
        )
        self.head = nn.Linear(16, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.encoder(pixels))
        return scores


def digits(rows: int = 2) -> str:
    torch.manual_seed(0)
    net = Net().eval()
    torch.save(net.state_dict(), "digits.state")
    example = random.random((rows, 1, 8, 8), dtype=np.float32)
    model_id: str = mlflow.pytorch.log_model(
        net,
        name="net",
        input_example=example,
        pip_requirements=REQUIREMENTS,
        metadata={"classes": CLASSES},
    ).model_id
    return model_id


def colours() -> str:
    """Columns of every kind, classes that are strings."""
    frame = pd.DataFrame(
        {
            "count": random.integers(0, 9, 200),
            "width": random.random(200),
            "colour": random.choice(["red", "green", "blue"], 200),
        }
    )
    labels = np.where(frame["colour"] == "red", "stop", np.where(frame["count"] > 4, "go", "wait"))
    pipeline = make_pipeline(
        ColumnTransformer(
            [("colour", OneHotEncoder(handle_unknown="ignore"), ["colour"])],
            remainder="passthrough",
        ),
        RandomForestClassifier(20, random_state=0),
    ).fit(frame, labels)
    model_id: str = mlflow.sklearn.log_model(
        pipeline,
        name="pipeline",
        signature=infer_signature(frame, pipeline.predict(frame)),
        pip_requirements=REQUIREMENTS,
        serialization_format="cloudpickle",
    ).model_id
    return model_id


def iris() -> str:
    """A tensor signature, whole numbers as classes, registered by the program itself."""
    rows = random.random((90, 4))
    labels = np.arange(90) % 3
    model = LogisticRegression().fit(rows + labels[:, None], labels)
    model_id: str = mlflow.sklearn.log_model(
        model,
        name="model",
        input_example=rows[:3],
        pip_requirements=REQUIREMENTS,
        registered_model_name="iris",
    ).model_id
    return model_id


def prices() -> str:
    frame = pd.DataFrame({"area": random.random(50) * 100, "rooms": random.integers(1, 6, 50)})
    model = LinearRegression().fit(frame, 3 * frame["area"] + 10 * frame["rooms"])
    model_id: str = mlflow.sklearn.log_model(
        model,
        name="model",
        signature=infer_signature(frame, model.predict(frame)),
        pip_requirements=REQUIREMENTS,
    ).model_id
    return model_id


def pickled() -> str:
    """A pickled network of a module that only the program has."""
    Path("their_network.py").write_text(
        "from torch import nn\n\n\n"
        "class Their(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.encoder = nn.Linear(6, 4)\n"
        "        self.head = nn.Linear(4, 3)\n\n"
        "    def forward(self, rows):\n"
        "        if rows.sum() > 1e6:\n"
        "            raise ValueError('their network cannot take this')\n"
        "        if rows.sum() < -1e6:\n"
        "            __import__('os')._exit(9)\n"
        "        return self.head(self.encoder(rows))\n"
    )
    sys.path.insert(0, str(Path.cwd()))
    model_id: str = mlflow.pytorch.log_model(
        importlib.import_module("their_network").Their().eval(),
        name="net",
        input_example=random.random((2, 6), dtype=np.float32),
        pip_requirements=REQUIREMENTS,
        serialization_format="pickle",
        code_paths=["their_network.py"],
    ).model_id
    return model_id


def checkpoints() -> str:
    """Three models of one run; the last one counts."""
    ids: list[str] = [
        mlflow.sklearn.log_model(
            LinearRegression().fit([[0.0], [1.0]], [0, slope]),
            name=f"after-{slope}",
            input_example=np.zeros((2, 1)),
            pip_requirements=REQUIREMENTS,
        ).model_id
        for slope in (1, 2, 3)
    ]
    return ids[-1]


def empty() -> str:
    mlflow.log_metric("loss", 0.5)
    return ""


PROGRAMS = {
    "digits": digits,
    "digits-one-row": lambda: digits(1),
    "colours": colours,
    "iris": iris,
    "prices": prices,
    "pickled": pickled,
    "checkpoints": checkpoints,
    "empty": empty,
}


def main(tags: list[str]) -> None:
    models = {}
    for tag in tags:
        os.environ["MLFLOW_RUN_CONTEXT"] = json.dumps({"homeostat.run": f"run-{tag}"})
        with mlflow.start_run() if tag != "iris" else own_run():
            models[tag] = PROGRAMS[tag]()
    Path("models.json").write_text(json.dumps(models))


def own_run() -> AbstractContextManager[object]:
    """A program that chooses its experiment before it starts its run."""
    mlflow.set_experiment("of-my-own")
    run: AbstractContextManager[object] = mlflow.start_run()
    return run


if __name__ == "__main__":
    main(sys.argv[1:])
