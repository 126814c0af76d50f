"""homeostat journal"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.table import Table

from homeostat.errors import InputError
from homeostat.settings import Settings
from loop.clock import utc_now
from loop.commands import quarantine
from loop.commands.common import environ, journal_of, say, settings_of, state_of, terminal
from loop.commands.parameters import duration, moment
from loop.commands.progress import progress_bar
from loop.sizes import readable

Progress = Callable[[str, int, int], None]
SHOWN_DAYS = 10
SHOWN_FEATURES = 4


@click.group()
def command() -> None:
    """The prediction log: what it holds, what it takes, what it should forget."""


command.add_command(quarantine.command)


@command.command()
@click.pass_obj
def compact(project: Path) -> None:
    """Put small files together. Readers and servers go on; the loop does it by itself."""
    from homeostat.journal.delta import table_log
    from homeostat.journal.keeping import compaction

    settings = settings_of(project)
    with _alone(settings) as progress:
        for name, table in _tables(settings).items():
            done = compaction.compact(table, now=utc_now(), progress=progress)
            table_log.tidy_log(table)
            say(f"{name}: {done.replaced} files became {done.written}")


@command.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option(
    "--replaced-for",
    callback=duration,
    help="Files replaced so long ago go; default: journal.keep_deleted.",
)
@click.option(
    "--yes", is_flag=True, help="Delete old rows even where that is nearly all the log holds."
)
@click.pass_obj
def vacuum(project: Path, dry_run: bool, replaced_for: timedelta | None, yes: bool) -> None:
    """Delete rows beyond journal.keep and journal.keep_bytes, and files that were replaced."""
    from homeostat.journal.keeping import retention
    from homeostat.journal.keeping.upkeep import expire, keeping_of

    settings = settings_of(project)
    older = settings.journal.keep_deleted if replaced_for is None else replaced_for
    would = "would go" if dry_run else "went"
    with _alone(settings) as progress:
        tables = _tables(settings)
        keeping = keeping_of(settings.journal)
        old = expire(tables, keeping, now=utc_now(), dry_run=dry_run, anyway=yes)
        span = f" ({old.days[0]} to {old.days[-1]})" if old.days else ""
        say(f"{len(old.days)} days {would}{span}: {old.rows:,} rows, {old.labels:,} labels")
        for at, (name, table) in enumerate(tables.items()):
            progress("removing replaced files", at, len(tables))
            gone = retention.vacuum(table, keep_deleted=older, dry_run=dry_run)
            say(f"{name}: {gone.files} files {would}, {readable(gone.bytes)}")


@command.command()
@click.argument("ids", nargs=-1)
@click.option("--key", "keys", multiple=True, help="Every row with this key of the caller's.")
@click.option(
    "--ids-from",
    type=click.File(),
    help="File with one prediction_id a line; - is standard input.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def forget(
    project: Path, ids: tuple[str, ...], keys: tuple[str, ...], ids_from: Any, yes: bool
) -> None:
    """Forget rows by their prediction IDS, or by key: in the log and in all that was made of it.

    What cannot be reached is said.
    """
    from loop import forgetting

    settings = settings_of(project)
    given = [*ids, *(line.strip() for line in ids_from or ())]
    wanted = forgetting.wanted_of(
        settings, environ(), ids=[each for each in given if each], keys=[k for k in keys if k]
    )
    if not (wanted.ids or wanted.keys):
        raise InputError("name what to forget: prediction ids, or --key")
    if not yes:
        with progress_bar(terminal) as progress:
            found = forgetting.find(settings, wanted, progress)
        count = len(found.ids | wanted.ids)
        click.confirm(
            f"{len(found.ids)} of {count} predictions are in the log's files. "
            "Forget them for good?",
            abort=True,
        )
    with state_of(settings) as state, progress_bar(terminal) as progress:
        report = forgetting.forget_rows(settings, state, wanted, clock=utc_now, progress=progress)
    for line in forgetting.sentences(report):
        say(line)
    raise SystemExit(1 if report.remains else 0)


@command.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def stats(project: Path, as_json: bool) -> None:
    """How large the log is, how far it reaches, and who writes to it: quickly, however large."""
    from homeostat.journal.keeping.stats import stats as gather

    settings = settings_of(project)
    model = settings.model
    found = gather(settings.journal_path, model.name, model.task)
    if as_json:
        told = {**msgspec.to_builtins(found), "table_bytes": found.table_bytes}
        click.echo(msgspec.json.encode(told))
        return
    say(f"{found.rows:,} rows in {found.files} files, {readable(found.bytes)}")
    if found.oldest and found.newest:
        say(f"from {found.oldest:%F %T} to {found.newest:%F %T} UTC")
    pending = "`homeostat labels pending` counts those without a prediction"
    say(f"{found.labels:,} labels, {readable(found.label_bytes)}; {pending}")
    say(f"{found.replaced.files} replaced files, {readable(found.replaced.bytes)}, until they go")
    _days(found)
    _writers(found)


@command.command()
@click.pass_obj
def volume(project: Path) -> None:
    """What a day of the log takes: measured on the last one, else estimated."""
    from loop.journal_volume import volume_line

    say(volume_line(settings_of(project), utc_now()))


@command.command()
@click.option("-n", "--rows", default=10, show_default=True, help="So many to begin with.")
@click.option("--no-follow", is_flag=True, help="End after these.")
@click.option("--json", "as_json", is_flag=True, help="One line a row, with all it holds.")
@click.pass_obj
def tail(project: Path, rows: int, no_follow: bool, as_json: bool) -> None:
    """Show the newest rows, and those that come. Ctrl-C ends it."""
    from homeostat.journal.export import json_line
    from homeostat.journal.tail import tail as follow

    settings = settings_of(project)
    features = _features(settings)
    try:
        for table in follow(
            journal_of(settings),
            features,
            rows,
            follow=not no_follow,
            quarantined=True,
            also=("_key",),
        ):
            for row in table.to_pylist():
                if as_json:
                    click.echo(json_line(row))
                else:
                    say(_row(row, features))
    except KeyboardInterrupt:
        return


@command.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--from",
    "start",
    callback=moment,
    default="24h",
    show_default=True,
    help="A time, or how long ago.",
)
@click.option("--to", "end", callback=moment, default="0s", show_default="now", help="Likewise.")
@click.option("--version", "versions", multiple=True, help="May be given several times.")
@click.option("--role", "roles", multiple=True, help="champion, challenger, shadow …")
@click.option("--label", default="label", show_default=True, help="Name of the labels joined.")
@click.option("--embedding", is_flag=True, help="With probabilities and embeddings.")
@click.option("--quarantined", is_flag=True, help="With rows that were put aside.")
@click.pass_obj
def export(project: Path, /, file: Path, start: datetime, end: datetime, **chosen: Any) -> None:
    """Write a window of rows, with their labels, to FILE: .parquet, .csv or .jsonl."""
    from homeostat.journal.delta.files import files_in
    from homeostat.journal.export import export as write

    settings = settings_of(project)
    if start >= end:
        raise InputError(f"--from {start:%F %T} does not come before --to {end:%F %T}")
    files = files_in(_tables(settings)["predictions"])
    about = sum(f.rows for f in files if f.start and f.end and f.end >= start and f.start < end)
    left_out: list[int] = []
    with progress_bar(terminal) as progress:
        rows = write(
            journal_of(settings),
            file,
            start,
            end,
            _features(settings),
            about=about,
            progress=progress,
            also=("_key",),
            left_out=left_out.append,
            **chosen,
        )
    say(f"{rows:,} rows, {readable(file.stat().st_size)}: {file}")
    if left_out:
        say(f"{sum(left_out):,} rows of tensors with another number of elements are left out")


@contextmanager
def _alone(settings: Settings) -> Iterator[Progress]:
    """While no other upkeep runs, with a progress bar."""
    from loop import upkeep_lease

    with (
        state_of(settings) as state,
        progress_bar(terminal) as progress,
        upkeep_lease.held(
            state,
            settings.model.name,
            utc_now,
            waiting=lambda: progress("waiting for the log's upkeep", 0, 1),
        ),
    ):
        yield progress


def _tables(settings: Settings) -> Any:
    from homeostat.journal.delta.tables import tables_of

    return tables_of(settings.journal_path, settings.model.name, settings.model.task)


def _features(settings: Settings) -> tuple[str, ...]:
    from homeostat.journal.reading.logged_features import logged_features

    model = settings.model
    return logged_features(settings.journal_path, model.name, model.task, model.features)


def _days(found: Any) -> None:
    table = Table("day", "rows", "files", "size", title="newest days", title_justify="left")
    for day in reversed(found.days[-SHOWN_DAYS:]):
        table.add_row(day.day, f"{day.rows:,}", str(day.files), readable(day.bytes))
    if found.days:
        terminal.print(table)


def _writers(found: Any) -> None:
    table = Table("writer", "last commit", title="writers", title_justify="left")
    for each in found.writers:
        table.add_row(each.writer, f"{each.last_commit:%F %T}" if each.last_commit else "")
    if found.writers:
        terminal.print(table)


def _row(row: dict[str, Any], features: tuple[str, ...]) -> str:
    shown = ", ".join(f"{name} {row[name]}" for name in features[:SHOWN_FEATURES])
    more = " …" if len(features) > SHOWN_FEATURES else ""
    label = "" if row["_label"] is None else f"  label {row['_label']}"
    key = "" if row["_key"] is None else f"  key {row['_key']}"
    return (
        f"{row['_time']:%F %T}  {row['_prediction_id']}  version {row['_version']}  "
        f"{row['_prediction']}{label}{key}  {shown}{more}"
    )
