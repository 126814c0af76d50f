"""homeostat gate"""

from __future__ import annotations

from pathlib import Path

import click

from homeostat.errors import Conflict
from homeostat.identifiers import uuid7
from homeostat.records import Action, Decision
from homeostat.registry.feature_names import feature_names
from homeostat.state import rollouts, runs
from loop import deciding
from loop.clock import utc_now
from loop.commands.common import actor, environ, settings_of
from loop.commands.following import follow, refuse_while_paused, show_gate
from loop.context import Context
from loop.running import open_context


def _refuse_champion(context: Context, version: str) -> None:
    """It would be compared with itself."""
    with context.state.begin() as tx:
        rollout = rollouts.current(tx, context.model)
    if rollout is not None and rollout.champion.version == version:
        raise Conflict(
            f"version {version} of {context.model} is the champion: there is nothing to compare it "
            "with"
        )


@click.command()
@click.argument("version")
@click.pass_obj
def command(project: Path, version: str) -> None:
    """Put a VERSION registered in MLflow through the gate against the champion.

    A version that passes waits for `homeostat promote`. Exits 1 when it does not pass.
    """
    context = open_context(settings_of(project), environ(), preload=False)
    refuse_while_paused(context)
    _refuse_champion(context, version)
    now = utc_now()
    ref = context.registry.fetch(version, feature_names=feature_names(context.settings))
    decision = Decision(
        decision_id=uuid7(),
        model=context.model,
        action=Action.PROBE,
        reason=f"version {version} put to the gate by a person",
        actor=actor(),
        created_at=now,
    )
    try:
        with context.state.begin() as tx:
            rollouts.add_version(tx, context.model, ref, None, now)
            runs.decide(tx, decision)
            run = deciding.start_run(tx, decision, now, train_until=now, candidate=ref)
        run, report = follow(context, run.run_id)
    finally:
        context.state.close()
    if report is not None:
        show_gate(report)
    raise SystemExit(0 if run.stage.value == "proposed" else 1)
