"""homeostat serve"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click


@click.command()
@click.option("--workers", type=click.IntRange(1), help="Processes that share the port.")
@click.pass_obj
def command(project: Path, workers: int | None) -> None:
    """Start the model server alone; it serves what the rollout record says, MLflow or not."""
    arguments = [sys.executable, "-P", "-m", "serving", "--project", str(project.resolve())]
    if workers is not None:
        arguments += ["--workers", str(workers)]
    os.execv(sys.executable, arguments)  # noqa: S606 - the same process becomes the server
