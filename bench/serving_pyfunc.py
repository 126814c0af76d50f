"""A scikit-learn model: our server, with a worker process, against `mlflow models serve`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import contest, rivals
from bench.contest import NATIVE, Contestant, Speech
from bench.load import require_wrk
from bench.options import Options, Steps
from bench.processes import call, python
from bench.results import Aim, Findings, missed

PACKAGES = ("mlflow", "scikit-learn", "uvicorn", "fastapi", "msgspec")
MLFLOW = "mlflow models serve"
TIMES = 5.0  # as many requests as MLflow's, at 64 connections


def _ask(rows: Sequence[Sequence[float]]) -> dict[str, Any]:
    names = [f"x{i}" for i in range(len(rows[0]))]
    return {"dataframe_split": {"columns": names, "data": rows}}


OURS = replace(NATIVE, said=lambda answer: [float(answer["predictions"][0])], member="prediction")
INVOCATIONS = Speech(
    path="/invocations",
    ask=_ask,
    said=lambda answer: [float(answer["predictions"][0])],
    member="prediction",
)


def others() -> list[str]:
    return [require_wrk()]


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    require_wrk()
    steps.tell("making the model and its project")
    call("-m", "bench.pyfunc_project", str(folder))
    outcome = contest.hold([_ours(), _mlflow()], folder, options, steps)
    level = contest.central(options.connections)
    found = outcome.ratio(MLFLOW, level)
    aims = [
        Aim(
            said=f"At {level} connections {found:.1f} times the requests of `{MLFLOW}`; "
            f"{TIMES:g} are asked",
            met=found >= TIMES,
        )
    ]
    return Findings(
        title="A scikit-learn model",
        setup=(
            "One row of 32 numbers a request, logistic regression with three classes, as MLflow "
            "saved it. Ours answers from a worker process with probabilities and logs every row; "
            f"`{MLFLOW}` (one worker, no environment manager) answers the class and logs nothing. "
            f"{options.seconds:g} s a figure, {options.rounds} round(s)."
        ),
        tables=contest.tables(outcome),
        notes=[str(aim) for aim in aims],
        figures=outcome.figures(),
        missed=missed(aims, quick=options.quick),
    )


def _ours() -> Contestant:
    return replace(rivals.ours(), speech=OURS)


def _mlflow() -> Contestant:
    def command(folder: Path, port: int) -> list[str]:
        return [
            *python("-m", "mlflow", "models", "serve", "--model-uri", str(folder / "model")),
            *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", "1"),
        ]

    # it looks for uvicorn on the path
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return Contestant(name=MLFLOW, command=command, speech=INVOCATIONS, environ={"PATH": path})
