"""homeostat pause"""

from __future__ import annotations

from pathlib import Path

import click

from homeostat import events as types
from homeostat.state import controls, events
from loop.clock import utc_now
from loop.commands.common import actor, settings_of, state_of, terminal


@click.command()
@click.option("--reason", default="", help="For the record.")
@click.pass_obj
def command(project: Path, reason: str) -> None:
    """Stop acting: no training, no promotion. Checks and alerts go on."""
    settings = settings_of(project)
    model, now = settings.model.name, utc_now()
    with state_of(settings) as state, state.begin() as tx:
        controls.set_paused(tx, model, True, reason=reason, actor=actor(), now=now)
        events.record(tx, types.LOOP_PAUSED, model, now, reason=reason, actor=actor())
    terminal.print("paused")
