"""homeostat serve"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click


@click.command()
@click.pass_obj
def command(project: Path) -> None:
    """Start the model server alone; it serves what the rollout record says, MLflow or not."""
    arguments = [sys.executable, "-P", "-m", "serving", "--project", str(project.resolve())]
    os.execv(sys.executable, arguments)  # noqa: S606 - the same process becomes the server
