"""homeostat keys"""

from __future__ import annotations

from pathlib import Path

import click

from homeostat.auth import Scope, add_key, load_keys, new_key
from loop.commands.common import settings_of, terminal


@click.group()
def command() -> None:
    """Make and list the keys callers show. Servers read them at start."""


@command.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    default=(Scope.PREDICT.value,),
    show_default=True,
    help="May be given several times.",
)
@click.pass_obj
def new(project: Path, name: str, scopes: tuple[str, ...]) -> None:
    """Make a key called NAME. It is shown once; only its hash is kept."""
    settings = settings_of(project)
    token, key = new_key(name, frozenset(Scope(scope) for scope in scopes))
    add_key(settings.keys_path, key)
    click.echo(token)
    terminal.print("From the next start on, callers have to show a key.", style="dim")


@command.command(name="list")
@click.pass_obj
def list_keys(project: Path) -> None:
    """Names and scopes."""
    for key in load_keys(settings_of(project).keys_path).keys:
        terminal.print(f"{key.name}: {', '.join(sorted(key.scopes))}")
