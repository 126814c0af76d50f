"""homeostat labels import"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from homeostat.errors import JournalUnavailable
from homeostat.labels import LABEL
from homeostat.settings import Settings
from loop.clock import utc_now
from loop.commands.common import say, settings_of, terminal
from loop.commands.import_report import ImportReport
from loop.commands.progress import progress_bar
from loop.server_door import flush_journal

if TYPE_CHECKING:
    from homeostat.journal.importing.labels_import import Imported


@click.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--id-column", default="id", show_default=True, help="Holds the prediction's id.")
@click.option("--value-column", default="value", show_default=True, help="Holds the label.")
@click.option("--name-column", default="name", show_default=True, help="If it is there.")
@click.option("--source-column", default="source", show_default=True, help="If it is there.")
@click.option("--time-column", default="time", show_default=True, help="If it is there; else now.")
@click.option("--name", help='Of all these labels, such as "thumbs"; "label" is what is compared.')
@click.option("--source", help="Of all these labels, such as a team or a system.")
@click.option("--utc", is_flag=True, help="Times without a zone are UTC.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what was refused or did not match, with line numbers, to this CSV file.",
)
@click.pass_obj
def command(
    project: Path,
    file: Path,
    id_column: str,
    value_column: str,
    name_column: str,
    source_column: str,
    time_column: str,
    name: str | None,
    source: str | None,
    utc: bool,
    report: Path | None,
) -> None:
    """Store the labels of FILE: CSV, JSON lines or Parquet. Needs no server.

    Killed and run again, it goes on where it stopped: every label is stored once. Exits 1 when
    lines were refused; those that could be read are stored.
    """
    from homeostat.journal.importing.label_rows import Layout
    from homeostat.journal.importing.labels_import import Import

    settings = settings_of(project)
    layout = Layout(
        id=id_column,
        value=value_column,
        name=name_column,
        source=source_column,
        time=time_column,
        all_names=name,
        all_sources=source,
        utc=utc,
    )
    flush_journal(settings)  # so that the newest predictions are not told as missing
    with ImportReport(report).open() as told, progress_bar(terminal) as progress:
        work = Import(
            url=settings.journal_path,
            model=settings.model.name,
            task=settings.model.task,
            file=file,
            layout=layout,
            tell=told.add,
            progress=progress,
        )
        try:
            found = work.run(utc_now())
        except JournalUnavailable as error:
            again = "run the same command again: it goes on where it stopped"
            raise JournalUnavailable(f"{error}; {again}") from error
    for line in _sentences(found, settings):
        say(line)
    if found.refused:
        terminal.print(f"[red]rows that were refused: {found.refused}[/]")
    told.show()
    raise SystemExit(1 if found.refused else 0)


def _sentences(found: Imported, settings: Settings) -> Iterator[str]:
    names = ", ".join(f'{count} "{name}"' for name, count in sorted(found.names.items()))
    named = f" ({names})" if found.names.keys() - {LABEL} else ""
    yield f"labels stored: {found.stored} of {found.rows} rows{named}"
    if found.before:
        yield f"stored by an earlier run of the same import: {found.before}"
    if found.unmatched:
        share = settings.journal.sample
        sampled = f"; only {share:.0%} of predictions are logged (journal.sample)"
        yield (
            f"without a prediction in the log: {found.unmatched}; they count if it was made "
            f"already,  or within an hour of the label{sampled if share < 1 else ''}"
        )
    if found.too_old:
        yield (
            f"more than an hour before the prediction with their id: {found.too_old}; they never "
            "count for it"
        )
