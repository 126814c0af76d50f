"""What an hour of the log costs to read, whatever else the log holds; and what a commit costs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
from deltalake import DeltaTable

from bench.journal_hours import BEGIN, DAY, FEATURES, Days, Shape
from bench.journal_readings import Commits, Fold, Reading, aims, size_of
from bench.options import Options, Steps
from bench.processes import ROOT, environment, measure, python
from bench.results import Findings, Table, missed
from homeostat.journal.encoding.schema import column_of

PACKAGES = ("deltalake", "pyarrow", "numpy")
SIZES = (1, 30)  # days
READ = FEATURES[:25]
HOUR = timedelta(hours=1)
COMMITS_LOOKED_AT = 50  # at the day's beginning, its end and after compaction
ROWS_A_SECOND = 2


def others() -> list[str]:
    return []


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    sizes = (1, 3) if options.quick else SIZES
    steps.expect(sum(sizes) + 2 * len(sizes) + 1)
    readings: list[Reading] = []
    commits: list[Commits] = []
    for days in sizes:
        shape = Shape(days=days, rows_a_second=ROWS_A_SECOND)
        found, cost = _measure(Days(str(folder / f"{days}"), shape), shape, options, steps)
        readings += found
        commits.append(cost)
    steps.tell("folding over all of it")
    folds = _folds(folder, sizes[-1])
    steps.done()
    figures = {"readings": readings, "commits": commits, "folds": folds}
    judged = aims(readings, commits, sizes)
    return Findings(
        title="Reading an hour of the log",
        setup=(
            f"Tables of {' and '.join(map(str, sizes))} days, {len(FEATURES)} float64 features and "
            f"a 16-d embedding, {86_400 * ROWS_A_SECOND:,} rows a day: "
            f"{' and '.join(size_of(each) for each in commits)}. The last day comes in commits of "
            "30 s; the days before it are as upkeep leaves them. Read are "
            f"{len(READ)} features of a window, with ids, times, labels and quarantine, as the "
            "monitor does, from files in the page cache."
        ),
        tables=[_readings(readings, sizes), _commits(commits), _folded(folds)],
        notes=[
            *map(str, judged),
            "delta-rs's own dataset, given the same filter, stands beside it for scale.",
        ],
        missed=missed(judged, quick=options.quick),
        figures=figures,
    )


def _measure(
    days: Days, shape: Shape, options: Options, steps: Steps
) -> tuple[list[Reading], Commits]:
    def made() -> None:
        steps.done()

    steps.tell(f"{shape.days} days: the days before the last")
    days.past(made)
    steps.tell(f"{shape.days} days: a day of commits")
    count = 60 if options.quick else shape.commits_a_day
    seconds = list(days.last(count))
    steps.done()
    end = BEGIN + (shape.days - 1) * DAY + timedelta(seconds=30 * count)
    windows = {"an hour": HOUR, "six hours": 6 * HOUR, "a day": DAY}
    rounds = max(2, options.rounds)
    steps.tell(f"{shape.days} days: reading before compaction")
    readings = _read(days, shape, end, windows, rounds, compacted=False)
    steps.done()
    steps.tell(f"{shape.days} days: compaction, and reading after it")
    began = time.perf_counter()
    days.compact()
    compaction = time.perf_counter() - began
    readings += _read(days, shape, end, windows, rounds, compacted=True)
    after = list(days.last(min(COMMITS_LOOKED_AT, count)))
    actions = pa.table(DeltaTable(days.table.url).get_add_actions(flatten=True))
    steps.done()
    looked = min(COMMITS_LOOKED_AT, count // 2)
    return readings, Commits(
        days=shape.days,
        first=median(seconds[:looked]),
        last=median(seconds[-looked:]),
        after=median(after),
        compaction=compaction,
        rows=pc.sum(actions["num_records"]).as_py(),
        bytes=pc.sum(actions["size_bytes"]).as_py(),
    )


def _read(
    days: Days,
    shape: Shape,
    end: datetime,
    windows: dict[str, timedelta],
    rounds: int,
    *,
    compacted: bool,
) -> list[Reading]:
    """The newest hours, and one of the middle of the table."""
    reads: dict[str, Callable[[], int]] = {
        what: partial(_window, days, end - length, end) for what, length in windows.items()
    }
    if shape.days > 1:
        middle = BEGIN + (shape.days * DAY) / 2
        reads["an hour of an old day"] = partial(_window, days, middle, middle + HOUR)
    reads["an hour, delta-rs's own dataset"] = partial(_naive, days, end - HOUR, end)
    return [_timed(what, read, shape, compacted, rounds) for what, read in reads.items()]


def _folds(folder: Path, days: int) -> list[Fold]:
    found = []
    for span, how in ((1, "window"), (1, "batches"), (days, "window"), (days, "batches")):
        arguments = ("-m", "bench.journal_folding", str(folder / f"{days}"), str(span), how)
        cost = measure(
            python(*arguments), environment(PYTHONPATH=str(ROOT)), folder / f"{span}-{how}.log"
        )
        said = json.loads((folder / f"{span}-{how}.log").read_text())
        found.append(
            Fold(days=span, how=how, rows=said["rows"], cost=cost, peak_mib=said["peak_mib"])
        )
    return found


def _timed(
    what: str, read: Callable[[], int], shape: Shape, compacted: bool, rounds: int
) -> Reading:
    seconds = []
    rows = 0
    for _ in range(rounds):
        began = time.perf_counter()
        rows = read()
        seconds.append(time.perf_counter() - began)
    return Reading(
        days=shape.days, compacted=compacted, what=what, rows=rows, seconds=median(seconds)
    )


def _window(days: Days, start: datetime, end: datetime) -> int:
    return int(days.journal.window(start, end, READ).num_rows)


def _naive(days: Days, start: datetime, end: datetime) -> int:
    """What its documentation shows; pruned by the day."""
    folder = days.table.local
    store = pafs.SubTreeFileSystem(str(folder), pafs.LocalFileSystem())
    dataset = DeltaTable(days.table.url).to_pyarrow_dataset(
        filesystem=store, file_pruning_predicate=f"date >= '{start.date()}'"
    )
    type_ = pa.timestamp("us", "UTC")
    wanted = (pc.field("time") >= pa.scalar(start, type_)) & (
        pc.field("time") < pa.scalar(end, type_)
    )
    columns = ["prediction_id", "time", *map(column_of, READ)]
    return int(dataset.to_table(columns=columns, filter=wanted).num_rows)


def _readings(readings: Sequence[Reading], sizes: Sequence[int]) -> Table:
    columns = [
        f"{days} {'day' if days == 1 else 'days'}, {state}"
        for days in sizes
        for state in ("before", "after compaction")
    ]
    rows = []
    for what in dict.fromkeys(each.what for each in readings):
        cells = [
            f"{each.seconds:.3f} ({each.rows:,})" if each else ""
            for days in sizes
            for compacted in (False, True)
            for each in [_find(readings, days, compacted, what)]
        ]
        rows.append([what, *cells])
    return Table(title="Seconds to read (rows)", columns=["window", *columns], rows=rows)


def _find(readings: Sequence[Reading], days: int, compacted: bool, what: str) -> Reading | None:
    wanted = (days, compacted, what)
    return next((r for r in readings if (r.days, r.compacted, r.what) == wanted), None)


def _folded(folds: Sequence[Fold]) -> Table:
    return Table(
        title="Sums over the newest days of the larger table, compacted, in a process of its own",
        columns=["days, how", "rows", "seconds", "CPU seconds", "most memory (MiB)"],
        rows=[
            [
                f"{each.days}, {each.how}",
                f"{each.rows:,}",
                f"{each.cost.wall:.1f}",
                f"{each.cost.cpu:.1f}",
                f"{each.peak_mib:.0f}",
            ]
            for each in folds
        ],
    )


def _commits(commits: Sequence[Commits]) -> Table:
    return Table(
        title="Milliseconds of a commit of 30 s of rows (median), with fsync",
        columns=[
            "days in the table",
            "the day's first",
            "the day's last",
            "after compaction",
            "compaction (s)",
        ],
        rows=[
            [
                str(each.days),
                *(f"{1000 * value:.0f}" for value in (each.first, each.last, each.after)),
                f"{each.compaction:.1f}",
            ]
            for each in commits
        ],
    )
