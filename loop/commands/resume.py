"""homeostat resume"""

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
    """Act again."""
    settings = settings_of(project)
    model, now = settings.model.name, utc_now()
    with state_of(settings) as state, state.begin() as tx:
        controls.set_paused(tx, model, False, reason=reason, actor=actor(), now=now)
        events.record(tx, types.LOOP_RESUMED, model, now, reason=reason, actor=actor())
    terminal.print("acting again")
