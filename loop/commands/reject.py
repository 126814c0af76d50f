"""homeostat reject"""

from __future__ import annotations

from pathlib import Path

import click

from homeostat.errors import NotReady
from homeostat.records import Stage
from homeostat.state import runs
from loop.clock import utc_now
from loop.commands.common import actor, settings_of, state_of, terminal


@click.command()
@click.option("--reason", default="no reason given", help="For the record.")
@click.pass_obj
def command(project: Path, reason: str) -> None:
    """Turn away the version that waits for a person."""
    settings = settings_of(project)
    with state_of(settings) as state, state.begin() as tx:
        run = runs.active(tx, settings.model.name)
        if run is None or run.stage is not Stage.PROPOSED:
            raise NotReady("no version waits for a person")
        error = f"rejected by {actor()}: {reason}"
        runs.advance(tx, run, utc_now(), stage=Stage.REJECTED, error=error)
    terminal.print(f"version {run.candidate.version if run.candidate else ''} is turned away")
