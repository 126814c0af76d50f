"""homeostat pause, and what resume shares with it"""

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
    order(project, paused=True, reason=reason)
    terminal.print("paused")


def order(project: Path, *, paused: bool, reason: str) -> None:
    """Write the order down, with its event."""
    settings = settings_of(project)
    model, now = settings.model.name, utc_now()
    type_ = types.LOOP_PAUSED if paused else types.LOOP_RESUMED
    with state_of(settings) as state, state.begin() as tx:
        controls.set_paused(tx, model, paused, reason=reason, actor=actor(), now=now)
        events.record(tx, type_, model, now, reason=reason, actor=actor())
