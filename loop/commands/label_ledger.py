"""The label ledger on a terminal: what of each day is labelled, and when the rest will be."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from homeostat.journal.reading.ledger import Ledger
from homeostat.journal.reading.maturity import Standing
from homeostat.words import format_duration

WIDTH = 30  # of a full bar
EIGHTHS = " ▏▎▍▌▋▊▉"


def show(terminal: Console, ledger: Ledger, delay: timedelta) -> None:
    if not ledger.rows:
        terminal.print("No predictions in these days.")
        return
    table = Table("day (UTC)", "rows", "labelled", "share", "")
    for column in (1, 2, 3):
        table.columns[column].justify = "right"
    for day in ledger.days:
        cells = (day.day, f"{day.rows}", f"{day.labelled}", f"{day.share:.0%}", bar(day.share))
        table.add_row(*cells)
    terminal.print(table)
    if ledger.sampled < 1:
        terminal.print(f"counted in a sample of {ledger.sampled:.1%} of the rows, chosen by id")
    for line in sentences(ledger, delay):
        terminal.print(escape(line))


def bar(share: float) -> str:
    full, rest = divmod(round(share * WIDTH * 8), 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(WIDTH)


def sentences(ledger: Ledger, delay: timedelta) -> list[str]:
    """What the delays say, and whether monitor.label_delay fits them."""
    if ledger.ever is None:
        return [f'No label "{ledger.label}" came yet.']
    said = [
        f"{quantile.share:.0%} of the labels that ever come are there after "
        f"{_about(quantile.delay)}"
        for quantile in ledger.delays
    ]
    said.append(f"estimated share of predictions that ever get one: {ledger.ever:.1%}")
    mature = ledger.mature_at(ledger.until)
    if mature is not None and ledger.mature_after is not None:
        least = "" if ledger.settled else "at the earliest "
        said.append(f"a window that ends now is mature {least}at {mature:%F %H:%M} UTC")
        if not ledger.settled:
            said.append("labels still come as late as this log is old: more may follow")
        elif delay < ledger.mature_after:
            said.append(
                f"monitor.label_delay is {_about(delay)}: checks see fewer than nine tenths of "
                f"the labels; set it to {_about(ledger.mature_after)} or more"
            )
    return said


def standings(terminal: Console, counts: Mapping[Standing, int], since: datetime) -> None:
    meant = {
        Standing.MATURED: "labelled, and older than monitor.label_delay: these are used",
        Standing.PENDING: "younger than monitor.label_delay",
        Standing.NEVER: "older than that, and without a label so far",
    }
    table = Table("predictions", "rows", "", title=f"since {since:%F %H:%M} UTC")
    table.title_justify = "left"
    table.columns[1].justify = "right"
    for standing, words in meant.items():
        table.add_row(standing.value, f"{counts[standing]}", words)
    terminal.print(table)


def _about(duration: timedelta) -> str:
    """To two of its units: nobody plans by the microsecond."""
    seconds = duration.total_seconds()
    for size in (86_400, 3_600, 60, 1):
        if seconds >= size * 10:
            return format_duration(timedelta(seconds=round(seconds / size) * size))
    return format_duration(timedelta(milliseconds=round(seconds * 1000)))
