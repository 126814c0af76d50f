"""homeostat retrain"""

from __future__ import annotations

from pathlib import Path

import click
from rich.markup import escape

from homeostat.executor import tail_of
from homeostat.identifiers import uuid7
from homeostat.leash import OUTPUT
from homeostat.records import Action, Decision
from homeostat.state import checks, runs
from loop import deciding
from loop.clock import utc_now
from loop.commands.common import actor, environ, settings_of, terminal
from loop.commands.following import follow, refuse_while_paused, show_gate
from loop.running import open_context


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--reason", default="asked for by a person", help="For the record.")
@click.option("--probe", is_flag=True, help="Train and gate, do not promote.")
@click.argument("training_command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def command(project: Path, reason: str, probe: bool, training_command: tuple[str, ...]) -> None:
    """Train and gate a candidate now; promote it if it passes.

    TRAINING_COMMAND, after --, is run instead of the one in the settings.
    Exits 0 when the candidate passed its gate, 1 when it did not.
    """
    context = open_context(settings_of(project), environ(), preload=False)
    refuse_while_paused(context)
    now = utc_now()
    try:
        with context.state.begin() as tx:
            last = next((c for c in checks.newest(tx, context.model, 20) if c.verdict), None)
            decision = Decision(
                decision_id=uuid7(),
                model=context.model,
                action=Action.PROBE if probe else Action.RETRAIN,
                reason=reason,
                actor=actor(),
                created_at=now,
            )
            runs.decide(tx, decision)
            until = last.verdict.window.end if last and last.verdict else None
            run = deciding.start_run(tx, decision, now, train_until=until, command=training_command)
        run, report = follow(context, run.run_id)
    finally:
        context.state.close()
    if report is not None:
        show_gate(report)
    if run.error:
        terminal.print(f"[red]failed[/] {escape(run.error)}")
        folder = context.settings.jobs_path / f"{run.run_id}-train-{run.attempt}"
        if tail := tail_of(folder):
            terminal.print(escape(f"The last lines of {folder / OUTPUT}:\n{tail}"))
    raise SystemExit(0 if run.stage.value in ("promoted", "proposed") else 1)
