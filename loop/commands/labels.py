"""homeostat labels"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
import msgspec

from homeostat import columns
from homeostat.journal.encoding.schema import microseconds
from homeostat.journal.reader import Journal
from homeostat.journal.reading.maturity import Standing, standing
from homeostat.journal.reading.rows import integers
from loop.clock import utc_now
from loop.commands import label_ledger, labels_import
from loop.commands.common import journal_of, settings_of, terminal
from loop.server_door import flush_journal


@click.group()
def command() -> None:
    """What was true of predictions, what users thought of them, what they earned."""


command.add_command(labels_import.command)


def _of_days(function: Callable[..., None]) -> Any:
    """Which labels, of how many days, and for whom: the options of a look at labels."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="For programs."),
        click.option(
            "--days", default=30, show_default=True, type=click.IntRange(1), help="So far back."
        ),
        click.option("--name", default="label", show_default=True, help="Of the labels looked at."),
    ):
        function = option(function)
    return function


@command.command()
@_of_days
@click.pass_obj
def ledger(project: Path, name: str, days: int, as_json: bool) -> None:
    """How late labels come, what of each day is labelled, and when the rest will be.

    Rows in quarantine count as well: their labels come as late as others.
    """
    settings = settings_of(project)
    flush_journal(settings)
    found = journal_of(settings).ledger(utc_now(), days=days, label=name)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        label_ledger.show(terminal, found, settings.monitor.label_delay)


@command.command()
@_of_days
@click.pass_obj
def pending(project: Path, name: str, days: int, as_json: bool) -> None:
    """What still waits: predictions for their labels, and labels for their predictions.

    Rows in quarantine wait for nothing, and are left out.
    """
    settings = settings_of(project)
    flush_journal(settings)
    journal, now = journal_of(settings), utc_now()
    since = now - timedelta(days=days)
    counts = count_standings(journal, since, now, settings.monitor.label_delay, name)
    alone = journal.pending_labels(label=name, since=since)
    if as_json:
        rows = {standing.value: count for standing, count in counts.items()}
        click.echo(msgspec.json.encode({**rows, "without_prediction": alone}))
        return
    label_ledger.standings(terminal, counts, since)
    terminal.print(f"labels without a prediction (yet): {alone}")


def count_standings(
    journal: Journal, start: datetime, end: datetime, delay: timedelta, name: str
) -> dict[Standing, int]:
    """Predictions by what may be said of their labels at `end`, in bounded memory; without those
    in quarantine, which nothing uses."""
    found: Counter[str] = Counter()
    for batch in journal.batches(start, end, (), label=name):
        kinds = standing(
            integers(batch[columns.TIME]),
            batch[columns.LABEL].is_valid().to_numpy(zero_copy_only=False),
            now_us=microseconds(end),
            delay_us=delay // timedelta(microseconds=1),
        )
        found.update(kinds.tolist())
    return {each: found[each.value] for each in Standing}
