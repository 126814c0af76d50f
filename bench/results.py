"""What a subject found, and how it is shown: a terminal, a JSON file, bench/RESULTS.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table as RichTable

from bench.machine import Machine

RESULTS = Path(__file__).parent / "RESULTS.md"
HEAD = """# Results

Made by `python -m bench SUBJECT --record`; do not edit between the marks. Absolute figures belong
to the machine named beside them; the ratios are the point. Contestants take turns, round by round,
so that a machine that slows down slows all of them; a figure is the median of the rounds, and a
ratio is the median of the ratios within a round.
"""


@dataclass(frozen=True, kw_only=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a subject's `run` gives back."""

    title: str
    setup: str  # what was measured, in a sentence or two
    tables: Sequence[Table]
    notes: Sequence[str] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)  # every single measurement
    missed: Sequence[str] = ()  # aims of our own; the run is shown, and has failed


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What we ask of ourselves, and whether it came so."""

    said: str  # the figure, and what is asked of it
    met: bool

    def __str__(self) -> str:
        return f"{self.said}: {'met' if self.met else 'MISSED'}."


def missed(aims: Sequence[Aim], *, quick: bool) -> list[str]:
    """None of a quick run, whose figures mean nothing."""
    return [str(aim) for aim in aims if not aim.met and not quick]


@dataclass(frozen=True, kw_only=True)
class Report:
    subject: str
    command: str
    machine: Machine
    seconds: float
    stolen: float  # share of the processors' time that the machine's host gave others meanwhile
    findings: Findings


def show(report: Report, console: Console) -> None:
    for table in report.findings.tables:
        drawn = RichTable(*table.columns, title=table.title, title_justify="left")
        for column in drawn.columns[1:]:
            column.justify = "right"
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)
    for note in report.findings.notes:
        console.print(f"- {note}", highlight=False, markup=False)


def write_json(report: Report, path: Path) -> None:
    encoded = msgspec.json.encode(report, enc_hook=str)
    path.write_bytes(msgspec.json.format(encoded, indent=2) + b"\n")


def record(report: Report, path: Path = RESULTS) -> None:
    """Put the report in the place of the subject's last one; other subjects stay as they are."""
    text = path.read_text() if path.exists() else HEAD
    begin, end = f"<!-- {report.subject}: begin -->\n", f"<!-- {report.subject}: end -->\n"
    section = begin + "\n" + markdown(report) + "\n" + end
    if begin in text and end in text:
        before, rest = text.split(begin, 1)
        after = rest.split(end, 1)[1]
        text = before + section + after
    else:
        text = f"{text.rstrip()}\n\n{section}"
    path.write_text(text)


def markdown(report: Report) -> str:
    found, machine = report.findings, report.machine
    parts = [
        f"## {found.title}",
        f"{found.setup}",
        f"{machine.date}; {machine.hardware} (load before: {machine.load_before:g} a core, "
        f"{report.stolen:.1%} taken by its host); {machine.software}.",
        f"`{report.command}` ({report.seconds / 60:.0f} minutes)",
    ]
    for table in found.tables:
        parts += [f"**{table.title}**", _markdown_table(table)]
    if found.notes:
        parts.append("\n".join(f"- {note}" for note in found.notes))
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    lines = [table.columns, ["---"] + ["---:"] * (len(table.columns) - 1), *table.rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
