"""homeostat keys"""

from __future__ import annotations

from pathlib import Path

import click

from homeostat.auth import Limit, Scope, add_key, load_keys, new_key, remove_key
from loop.commands.common import settings_of, terminal


@click.group()
def command() -> None:
    """Make, list and remove the keys callers show."""


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
@click.option(
    "--rows-per-second",
    type=click.FloatRange(0, min_open=True),
    help="Rows it may predict; past it the answer is 429.  [default: no limit]",
)
@click.option(
    "--burst",
    type=click.FloatRange(1),
    help="Rows it may predict at once, after a pause.  [default: those of a second]",
)
@click.pass_obj
def new(
    project: Path,
    name: str,
    scopes: tuple[str, ...],
    rows_per_second: float | None,
    burst: float | None,
) -> None:
    """Make a key called NAME. It is shown once; only its hash is kept."""
    settings, limit = settings_of(project), None
    if rows_per_second is not None:
        limit = Limit(rows_per_second, burst or max(rows_per_second, 1.0))
    elif burst is not None:
        raise click.UsageError("--burst needs --rows-per-second")
    first = not load_keys(settings.keys_path)
    token, key = new_key(name, frozenset(Scope(scope) for scope in scopes), limit)
    add_key(settings.keys_path, key)
    click.echo(token)
    note = "Shown only now. Callers send it as `Authorization: Bearer KEY`; "
    note += "from now on, each has to show one." if first else "what runs knows it in a second."
    click.secho(note, err=True, dim=True)


@command.command()
@click.argument("name")
@click.pass_obj
def remove(project: Path, name: str) -> None:
    """The key called NAME opens nothing any more, from a second on."""
    remove_key(settings_of(project).keys_path, name)


@command.command(name="list")
@click.pass_obj
def list_keys(project: Path) -> None:
    """Names, scopes and limits."""
    keys = load_keys(settings_of(project).keys_path).keys
    if not keys:
        terminal.print("No keys: everybody may ask, and nothing listens beyond loopback.")
    for key in keys:
        limit = f", {key.limit.rows_per_second:g} rows a second" if key.limit else ""
        terminal.print(f"{key.name}: {', '.join(sorted(key.scopes))}{limit}")
