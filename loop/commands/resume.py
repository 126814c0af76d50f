"""homeostat resume"""

from __future__ import annotations

from pathlib import Path

import click

from loop.commands.common import terminal
from loop.commands.pause import order


@click.command()
@click.option("--reason", default="", help="For the record.")
@click.pass_obj
def command(project: Path, reason: str) -> None:
    """Act again."""
    order(project, paused=False, reason=reason)
    terminal.print("acting again")
