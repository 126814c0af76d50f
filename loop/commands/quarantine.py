"""homeostat journal quarantine"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.markup import escape
from rich.table import Table

from homeostat.errors import InputError
from homeostat.identifiers import uuid7
from loop.clock import utc_now
from loop.commands.common import journal_of, say, settings_of, terminal
from loop.commands.parameters import moment

as_json = click.option("--json", "as_json", is_flag=True, help="For programs.")


@click.group(name="quarantine")
def command() -> None:
    """Rows put aside: checks, training and exports leave them out until they are released."""


@command.command(name="list")
@as_json
@click.pass_obj
def list_(project: Path, as_json: bool) -> None:
    """What is put aside, why, and under which key it is released."""
    found = journal_of(settings_of(project)).put_aside()
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    if not found:
        say("Nothing is in quarantine.")
        return
    table = Table("key", "since", "what", "reason")
    table.columns[0].no_wrap = True  # it is copied from here
    for each in found:
        what = [f"{each.ids:,} ids"] if each.ids else []
        what += [_range(span) for span in each.ranges]
        table.add_row(
            escape(each.key), f"{each.time:%F %T}", escape("\n".join(what)), escape(each.reason)
        )
    terminal.print(table)


@command.command()
@click.argument("ids", nargs=-1)
@click.option(
    "--ids-from",
    type=click.File(),
    help="File with one prediction_id a line; - is standard input.",
)
@click.option("--from", "start", callback=moment, help="A time, or how long ago: a range of time.")
@click.option("--to", "end", callback=moment, help="Likewise; default: now.")
@click.option("--version", help="Of the range, only rows of this version.")
@click.option("--reason", required=True, help="Why: `list` shows it.")
@click.option("--key", help="To release it by; default: a new one.")
@as_json
@click.pass_obj
def put(
    project: Path,
    ids: tuple[str, ...],
    ids_from: Any,
    start: datetime | None,
    end: datetime | None,
    version: str | None,
    reason: str,
    key: str | None,
    as_json: bool,
) -> None:
    """Put rows aside: those with these prediction IDS, or those of a range of time.

    A range holds for rows that come later as well, as from the spool of a server.
    """
    named = [line for each in (*ids, *(ids_from or ())) if (line := each.strip())]
    if bool(named) == (start is not None) or (named and (end or version)):
        raise InputError(
            "name what to put aside: prediction ids, or a range of time (--from, --to, --version)"
        )
    key = key or f"by-hand-{uuid7()}"
    journal, now = journal_of(settings_of(project)), utc_now()
    if start is None:
        added = journal.quarantine(named, reason, key=key, now=now)
    else:
        added = journal.quarantine_range(
            start, end or now, reason, key=key, now=now, version=version
        )
    if as_json:
        click.echo(msgspec.json.encode({"key": key, "added": added}))
        return
    what = f"{added:,} ids" if start is None else f"{added} range of time"
    say(f"{what} put aside under {key}" if added else f"all of that was put aside under {key}")
    if added:
        say(f"undo it with: homeostat journal quarantine release {key}")


@command.command()
@click.argument("key")
@as_json
@click.pass_obj
def release(project: Path, key: str, as_json: bool) -> None:
    """Undo what was put aside under KEY, as `list` shows it: the rows count again."""
    released = journal_of(settings_of(project)).release(key, now=utc_now())
    if not released:
        raise InputError(f'nothing is in quarantine under the key "{key}"; `list` shows all keys')
    if as_json:
        click.echo(msgspec.json.encode({"key": key, "released": released}))
    else:
        say(f"{released:,} ids and ranges count again")


def _range(span: Any) -> str:
    of = "" if span.version is None else f", version {span.version}"
    return f"{span.start:%F %T} to {span.end:%F %T} UTC{of}"
