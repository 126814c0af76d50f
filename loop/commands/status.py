"""homeostat status"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.markup import escape
from rich.table import Table

from homeostat.state.checks import Check
from loop.clock import utc_now
from loop.commands.common import settings_of, state_of, terminal
from loop.status import Status, gather, next_step, trial_words

COLOURS = {"ok": "green", "promoted": "green", "benign_shift": "yellow", "undetermined": "yellow"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--limit", default=10, show_default=True, help="Newest entries of each kind.")
@click.pass_obj
def command(project: Path, as_json: bool, limit: int) -> None:
    """Show how things stand: who serves, the last checks, runs and events."""
    settings = settings_of(project)
    with state_of(settings) as state:
        status = gather(settings, state, utc_now(), limit=limit)
    if as_json:
        click.echo(msgspec.json.encode(status))
        return
    _head(status)
    _checks(status)
    _runs(status)
    _events(status, limit)


def _head(status: Status) -> None:
    serves = f"version {status.rollout.champion.version}" if status.rollout else "nothing yet"
    terminal.print(f"[bold]{status.model}[/]  serves {serves}  mode {status.mode}")
    if status.rollout and status.rollout.trial:
        terminal.print(f"beside it {trial_words(status.rollout.trial)}")
    terminal.print(f"server {status.server or 'not started'}   {status.outbox.waiting} alerts wait")
    terminal.print(escape(next_step(status)))


def _checks(status: Status) -> None:
    table = Table("time", "verdict", "rows", "why", title="checks", title_justify="left")
    for check in status.checks:
        table.add_row(f"{check.scheduled_at:%F %T}", *_check_cells(check))
    terminal.print(table)


def _check_cells(check: Check) -> tuple[str, str, str]:
    if check.verdict is None:
        return check.status, "", escape(check.error or "")
    kind = check.verdict.kind.value
    return f"[{COLOURS.get(kind, 'red')}]{kind}[/]", str(check.verdict.rows), check.verdict.reason


def _runs(status: Status) -> None:
    if not status.runs:
        return
    table = Table("begun", "stage", "version", "gate", title="retraining", title_justify="left")
    for run in status.runs:
        gate = status.gates.get(run.run_id)
        why = gate.reason if gate else run.error or run.waiting_for or ""
        version = run.candidate.version if run.candidate else ""
        table.add_row(f"{run.created_at:%F %T}", run.stage.value, version, escape(why))
    terminal.print(table)


def _events(status: Status, limit: int) -> None:
    table = Table("time", "event", title="events", title_justify="left")
    for event in status.events[:limit]:
        table.add_row(f"{event.time:%F %T}", event.type)
    terminal.print(table)
