"""homeostat check"""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec
from rich.markup import escape

from homeostat.errors import NotReady
from homeostat.state import checks, rollouts
from loop import checking
from loop.clock import utc_now
from loop.commands.common import environ, settings_of, terminal
from loop.context import Context
from loop.holder import holder_name
from loop.running import open_context


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def command(project: Path, as_json: bool) -> None:
    """Check the newest window now. The verdict is kept, and a running loop decides upon it."""
    settings = settings_of(project)
    click.secho("checking the newest window", err=True, dim=True)
    context = open_context(settings, environ(), preload=False)
    try:
        check = _check(context)
    finally:
        context.executor.close()
        context.state.close()
    if as_json:
        click.echo(msgspec.json.encode(check))
    elif check.verdict:
        terminal.print(f"[bold]{check.verdict.kind}[/]  {escape(check.verdict.reason)}")
        if check.verdict.report:
            report = context.settings.home / check.verdict.report / "report.html"
            terminal.print(f"report: {report}")
    else:
        terminal.print(f"[red]failed[/] {escape(check.error or '')}")
    raise SystemExit(0 if check.verdict else 1)


def _check(context: Context) -> checks.Check:
    with context.state.begin() as tx:
        rollout = rollouts.current(tx, context.model)
    if rollout is None:
        raise NotReady(
            "no version serves yet; `homeostat up` trains the first one, and `homeostat status` "
            "says how far it is"
        )
    check_id = checking.begin(context, rollout, utc_now(), owner=holder_name())
    with terminal.status("checking"):
        while not checking.finish(context, check_id, utc_now()):
            time.sleep(0.1)
    with context.state.begin() as tx:
        check = checks.get(tx, check_id)
    assert check is not None
    return check
