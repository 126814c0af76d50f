"""The command line. Commands are imported when called: `homeostat --help` stays instant."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

import click

import homeostat
from homeostat.errors import HomeostatError

# name -> module under loop.commands, and its line in --help
COMMANDS = {
    "init": ("init", "Make a project folder that works."),
    "demo": ("demo", "Watch the loop close on real data, in four acts."),
    "up": ("up", "Start everything: server, loop, status page, MLflow's UI."),
    "serve": ("serve", "Start the model server alone."),
    "loop": ("run_loop", "Start the loop alone."),
    "status": ("status", "Show how things stand."),
    "check": ("check", "Check the newest window now."),
    "retrain": ("retrain", "Train and gate a candidate now."),
    "gate": ("gate", "Put a registered version through the gate."),
    "promote": ("promote", "Promote the version that passed its gate."),
    "reject": ("reject", "Turn away the version that waits, or end the run under way."),
    "rollback": ("rollback", "Go back to the version that served before."),
    "trial": ("trial", "Try a version beside the one that serves: shadow, canary, A/B."),
    "pause": ("pause", "Stop acting; go on checking and telling."),
    "resume": ("resume", "Act again."),
    "score": ("score", "Score the rows of a file, a folder or a table."),
    "labels": ("labels", "Labels of predictions: import files, see what is still missing."),
    "journal": ("journal", "The prediction log: size, upkeep, export, forgetting."),
    "backup": ("backup", "Back up and restore all that the platform keeps."),
    "dashboards": ("dashboards", "Grafana dashboards and Prometheus rules as files."),
    "keys": ("keys", "Make and list the keys callers show."),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"loop.commands.{COMMANDS[cmd_name][0]}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from homeostat.settings_reader import nearest

        if args and args[0] not in COMMANDS:
            ctx.fail(f'no such command "{args[0]}"{nearest(args[0], COMMANDS)}')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(homeostat.__version__, prog_name="homeostat")
@click.option(
    "-p",
    "--project",
    type=click.Path(path_type=Path),
    default=Path(),
    show_default="this folder",
    help="Folder of homeostat.toml.",
)
@click.pass_context
def cli(ctx: click.Context, project: Path) -> None:
    """Keeps a model inside its limits: serves it, remembers what it said, notices drift,
    retrains, proves the new version better, promotes it, and tells people."""
    ctx.obj = project


def main() -> None:
    from homeostat.rooms import verify_rooms

    os.environ.setdefault("PYTHONSAFEPATH", "1")  # for the Pythons we start
    try:
        verify_rooms()
        cli()
    except HomeostatError as error:
        click.secho(f"{error}", fg="red", err=True)
        if tail := getattr(error, "tail", ""):
            click.echo(tail, err=True)
        sys.exit(1)
