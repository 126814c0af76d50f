"""homeostat rollback"""

from __future__ import annotations

from pathlib import Path

import click

from homeostat import events as types
from homeostat.state import controls, events
from loop.clock import utc_now
from loop.commands.common import actor, settings_of, state_of, terminal
from retrain import promotion, publish


@click.command()
@click.option("--to", "version", help="A version that served before; default: the previous one.")
@click.option("--reason", default="rolled back by a person", help="For the record.")
@click.option("--pause", is_flag=True, help="Also pause the loop, so that it changes nothing.")
@click.pass_obj
def command(project: Path, version: str | None, reason: str, pause: bool) -> None:
    """Go back to the version that served before. Works with the loop and MLflow away."""
    settings = settings_of(project)
    with state_of(settings) as state, state.begin() as tx:
        now = utc_now()
        rollout = promotion.roll_back(
            tx, settings.model.name, to=version, reason=reason, actor=actor(), now=now
        )
        if pause:
            controls.set_paused(
                tx, settings.model.name, True, reason=reason, actor=actor(), now=now
            )
            events.record(
                tx, types.LOOP_PAUSED, settings.model.name, now, reason=reason, actor=actor()
            )
    publish.publish(settings.rollout_path, rollout)
    terminal.print(f"version {rollout.champion.version} serves again (epoch {rollout.epoch})")
