"""homeostat labels"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import click
import msgspec
from rich.markup import escape

from homeostat import columns
from homeostat.errors import JournalUnavailable
from homeostat.journal.encoding.schema import microseconds
from homeostat.journal.reader import Journal
from homeostat.journal.reading.maturity import Standing, standing
from homeostat.journal.reading.rows import integers
from homeostat.settings import Settings
from loop.clock import utc_now
from loop.commands.common import settings_of, terminal
from loop.commands.progress import progress_bar
from loop.server_door import flush_journal

SHOWN = 10  # lines of each kind on the terminal; the others are in the report


@click.group()
def command() -> None:
    """What was true of predictions, what users thought of them, what they earned."""


@command.command(name="import")
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
def import_(
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
    with _Report(report).open() as told, progress_bar(terminal) as progress:
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
    terminal.print(f"{found.stored} labels stored, of {found.rows} rows: {_by_name(found.names)}")
    if found.before:
        terminal.print(f"{found.before} labels were stored by an earlier run of the same import")
    if found.unmatched:
        terminal.print(
            f"{found.unmatched} labels have no prediction in the log: they count once it comes"
            + (f"; {_sampled(settings)}" if settings.journal.sample < 1 else "")
        )
    if found.refused:
        terminal.print(f"[red]{found.refused} rows were refused[/]")
    told.show()
    raise SystemExit(1 if found.refused else 0)


@command.command()
@click.option("--name", default="label", show_default=True, help="Of the labels looked at.")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1), help="So far back.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def ledger(project: Path, name: str, days: int, as_json: bool) -> None:
    """How late labels come, what of each day is labelled, and when the rest will be."""
    from loop.commands.label_ledger import show

    settings = settings_of(project)
    flush_journal(settings)
    found = _journal(settings).ledger(utc_now(), days=days, label=name)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        show(terminal, found, settings.monitor.label_delay)


@command.command()
@click.option("--name", default="label", show_default=True, help="Of the labels looked at.")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1), help="So far back.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def pending(project: Path, name: str, days: int, as_json: bool) -> None:
    """What still waits: predictions for their labels, and labels for their predictions."""
    from loop.commands.label_ledger import standings

    settings = settings_of(project)
    flush_journal(settings)
    journal, now = _journal(settings), utc_now()
    since = now - timedelta(days=days)
    counts = count_standings(journal, since, now, settings.monitor.label_delay, name)
    alone = journal.pending_labels(label=name, since=since)
    if as_json:
        rows = {standing.value: count for standing, count in counts.items()}
        click.echo(msgspec.json.encode({**rows, "without_prediction": alone}))
        return
    standings(terminal, counts, since)
    terminal.print(f"labels without a prediction (yet): {alone}")


def count_standings(
    journal: Journal, start: datetime, end: datetime, delay: timedelta, name: str
) -> dict[Standing, int]:
    """Predictions by what may be said of their labels at `end`, in bounded memory."""
    found: Counter[str] = Counter()
    for batch in journal.batches(start, end, (), label=name, quarantined=True):
        kinds = standing(
            integers(batch[columns.TIME]),
            batch[columns.LABEL].is_valid().to_numpy(zero_copy_only=False),
            now_us=microseconds(end),
            delay_us=delay // timedelta(microseconds=1),
        )
        found.update(kinds.tolist())
    return {each: found[each.value] for each in Standing}


def _journal(settings: Settings) -> Journal:
    return Journal(settings.journal_path, settings.model.name, settings.model.task)


class _Report:
    """Every line that went wrong, in a file; the first few on the terminal."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._write: Callable[[tuple[int, str, str]], object] | None = None
        self._first: list[tuple[int, str, str]] = []
        self._count = 0

    @contextmanager
    def open(self) -> Iterator[_Report]:
        """The file appears when all is told."""
        if self._path is None:
            yield self
            return
        partial = self._path.with_name(f".{self._path.name}.part")
        with partial.open("w", newline="", encoding="utf-8", errors="replace") as file:
            writer = csv.writer(file)
            writer.writerow(("line", "id", "problem"))
            self._write = writer.writerow
            yield self
        partial.replace(self._path)

    def add(self, line: int, identifier: str, problem: str) -> None:
        self._count += 1
        if len(self._first) < SHOWN:
            self._first.append((line, identifier, problem))
        if self._write is not None:
            self._write((line, identifier, problem))

    def show(self) -> None:
        for line, identifier, problem in self._first:
            terminal.print(escape(f"  line {line} ({identifier or 'no id'}): {problem}"))
        if self._path is not None:
            terminal.print(f"all {self._count} of them: {self._path}", soft_wrap=True)
        elif self._count > len(self._first):
            terminal.print(f"  … and {self._count - len(self._first)} more: see them with --report")


def _by_name(names: dict[str, int]) -> str:
    return escape(", ".join(f"{count} {name}" for name, count in sorted(names.items()))) or "none"


def _sampled(settings: Settings) -> str:
    return f"only {settings.journal.sample:.0%} of predictions are logged (journal.sample)"
