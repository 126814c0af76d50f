"""Saves a scikit-learn pipeline of columns with MLflow, into the folder named."""

from __future__ import annotations

import sys

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

random = np.random.default_rng(7)
frame = pd.DataFrame(
    {
        "count": random.integers(0, 9, 300),
        "width": random.random(300),
        "colour": random.choice(["red", "green", "blue"], 300),
    }
)
labels = np.where(frame["colour"] == "red", "stop", np.where(frame["count"] > 4, "go", "wait"))
pipeline = make_pipeline(
    ColumnTransformer(
        [("colour", OneHotEncoder(handle_unknown="ignore"), ["colour"])], remainder="passthrough"
    ),
    LogisticRegression(C=100, max_iter=5000),
).fit(frame, labels)
mlflow.sklearn.save_model(
    pipeline,
    sys.argv[1],
    signature=infer_signature(frame, pipeline.predict(frame)),
    pip_requirements=["mlflow"],
    serialization_format="cloudpickle",
)
