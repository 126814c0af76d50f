"""homeostat rollback"""

from __future__ import annotations

from pathlib import Path

import click

from homeostat import events as types
from homeostat.errors import Conflict
from homeostat.records import Rollout
from homeostat.settings import Settings
from homeostat.state import controls, events, rollouts
from homeostat.state.store import State
from loop.clock import utc_now
from loop.commands.common import actor, settings_of, state_of, terminal
from retrain import promotion, publish


@click.command()
@click.option("--to", "version", help="A version that served before; default: the previous one.")
@click.option("--reason", default="rolled back by a person", help="For the record.")
@click.option("--pause", is_flag=True, help="Also pause the loop, so that it changes nothing.")
@click.pass_obj
def command(project: Path, version: str | None, reason: str, pause: bool) -> None:
    """Go back to the version that served before. Works with the loop and MLflow away.

    Given again, it does not return to the version it left: that one serves again by --to.
    """
    settings = settings_of(project)
    with state_of(settings) as state:
        try:
            rollout = _roll_back(settings, state, version, reason, pause)
        except Conflict:
            # an earlier one may have been cut off before servers were told
            with state.begin() as tx:
                current = rollouts.current(tx, settings.model.name)
            if current is not None and publish.publish(settings.rollout_path, current):
                _say(current)
            raise
    publish.publish(settings.rollout_path, rollout)
    _say(rollout)


def _roll_back(
    settings: Settings, state: State, version: str | None, reason: str, pause: bool
) -> Rollout:
    model, now = settings.model.name, utc_now()
    with state.begin() as tx:
        rollout = promotion.roll_back(tx, model, to=version, reason=reason, actor=actor(), now=now)
        if pause:
            controls.set_paused(tx, model, True, reason=reason, actor=actor(), now=now)
            events.record(tx, types.LOOP_PAUSED, model, now, reason=reason, actor=actor())
    return rollout


def _say(rollout: Rollout) -> None:
    terminal.print(f"version {rollout.champion.version} serves again (epoch {rollout.epoch})")
