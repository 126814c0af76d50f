"""homeostat reject"""

from __future__ import annotations

from pathlib import Path

import click

from homeostat import events as types
from homeostat.errors import NotReady
from homeostat.records import Stage
from homeostat.state import events, runs
from loop.clock import utc_now
from loop.commands.common import actor, settings_of, state_of, terminal


@click.command()
@click.option("--reason", default="no reason given", help="For the record.")
@click.pass_obj
def command(project: Path, reason: str) -> None:
    """Turn away the version that waits for a person, or end the run that is under way."""
    settings = settings_of(project)
    model, now = settings.model.name, utc_now()
    with state_of(settings) as state, state.begin() as tx:
        run = runs.active(tx, model)
        if run is None:
            raise NotReady("no version waits for a person, and no run is under way")
        error = f"rejected by {actor()}: {reason}"
        runs.advance(tx, run, now, stage=Stage.REJECTED, error=error)
        version = run.candidate.version if run.candidate else None
        events.record(
            tx,
            types.MODEL_DECLINED,
            model,
            now,
            run_id=run.run_id,
            version=version,
            reason=reason,
            actor=actor(),
        )
    terminal.print(f"version {version} is turned away" if version else "the run is ended")
