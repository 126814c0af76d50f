"""A log that takes rows as fast as it can, in a process of its own: how fast, and how large."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

from bench.options import Options, Steps
from bench.processes import ROOT, environment, python
from bench.results import Aim, Findings, Table, missed

PACKAGES = ("deltalake", "pyarrow", "numpy")
ROWS = 10_000_000
QUICK_ROWS = 200_000
BATCH = 64  # rows: what a busy server hands over at once
TARGET = 150_000  # rows a second
MOST_GROWTH = 64.0  # MiB, from the end of the second million to the end of the last


class Mark(msgspec.Struct, frozen=True):
    """Where the process stood when so many rows were appended."""

    rows: int
    seconds: float
    cpu: float
    memory: float  # MiB of its own (RssAnon); mapped files can be given back at any time
    mapped: float
    stored: int
    spool_mib: float


class End(msgspec.Struct, frozen=True):
    seconds: float  # until all rows were in the table
    cpu: float
    found: int  # rows in the table
    table_bytes: int


def others() -> list[str]:
    return []


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    rows = QUICK_ROWS if options.quick else ROWS
    rounds = 1
    steps.expect(rounds * 10)
    marks, end = _append(rows, folder / "log", steps)
    per_second = rows / end.seconds
    if end.found != rows:
        raise SystemExit(f"{rows:,} rows were appended, {end.found:,} are in the table")
    growth = _growth(marks)
    aims = [
        Aim(
            said=f"{per_second:,.0f} rows/s from the first append until the last row was in the "
            f"table; at least {TARGET:,} are asked",
            met=per_second >= TARGET,
        ),
        Aim(
            said=f"Memory grew by {growth:.0f} MiB from the second tenth to the end (medians of "
            f"three); at most {MOST_GROWTH:.0f} is asked",
            met=growth <= MOST_GROWTH,
        ),
    ]
    return Findings(
        title="Sustained append",
        setup=(
            f"One process appends {rows:,} rows of 32 float32 features, a 64-d embedding and three "
            f"probabilities, {BATCH} at a time, as fast as the log takes them (durability spool, "
            "commits at 64 MB, a spool of at most 1 GB, when_full block), and waits until all of "
            "them are in the Delta table. The time to make the rows is in it."
        ),
        tables=[_curve(marks), _whole(rows, end)],
        notes=[str(aim) for aim in aims],
        figures={"marks": marks, "end": end, "rows_per_second": per_second},
        missed=missed(aims, quick=options.quick),
    )


def _growth(marks: Sequence[Mark]) -> float:
    """MiB; what the first tenth brings into memory once is not counted."""
    settled = marks[len(marks) // 5 :]
    last, first = (median(mark.memory for mark in part) for part in (settled[-3:], settled[:3]))
    return last - first


def _append(rows: int, folder: Path, steps: Steps) -> tuple[list[Mark], End]:
    command = python("-m", "bench.journal_appender", str(folder), str(rows), str(BATCH))
    errors = folder.with_suffix(".err")
    marks: list[Mark] = []
    steps.tell(f"{rows:,} rows")
    with errors.open("wb") as output:
        child = subprocess.Popen(
            command,
            env=environment(PYTHONPATH=str(ROOT)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    assert child.stdout is not None
    try:
        for line in child.stdout:
            said = json.loads(line)
            if "found" in said:
                return marks, msgspec.convert(said, End)
            marks.append(msgspec.convert(said, Mark))
            steps.done()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    raise SystemExit(f"the appending process ended:\n{errors.read_text()[-2000:]}")


def _curve(marks: Sequence[Mark]) -> Table:
    rows = []
    before = Mark(0, 0.0, 0.0, 0.0, 0.0, 0, 0.0)
    for mark in marks:
        rows.append(
            [
                f"{mark.rows:,}",
                f"{(mark.rows - before.rows) / (mark.seconds - before.seconds):,.0f}",
                f"{mark.memory:,.0f}",
                f"{mark.mapped:,.0f}",
                f"{mark.stored:,}",
                f"{mark.spool_mib:,.0f}",
            ]
        )
        before = mark
    return Table(
        title="While it appends",
        columns=[
            "rows appended",
            "rows/s since the line before",
            "memory MiB",
            "files mapped MiB",
            "rows in the table",
            "spool MiB",
        ],
        rows=rows,
    )


def _whole(rows: int, end: End) -> Table:
    return Table(
        title="From the first append until the last row is in the table",
        columns=[
            "rows",
            "rows in the table",
            "seconds",
            "rows/s",
            "CPU µs per row",
            "bytes per row",
        ],
        rows=[
            [
                f"{rows:,}",
                f"{end.found:,}",
                f"{end.seconds:.1f}",
                f"{rows / end.seconds:,.0f}",
                f"{1e6 * end.cpu / rows:.2f}",
                f"{end.table_bytes / rows:.0f}",
            ]
        ],
    )
