"""One check by our monitor against Evidently's DataDriftPreset on the same rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.options import Options, Steps
from bench.processes import ROOT, Cost, call, environment, measure, python
from bench.results import Findings, Table

PACKAGES = ("evidently", "pandas", "numpy", "scipy")
EVIDENTLY = "evidently"
SIDES = {
    "all_rows": "ours, scores and verdict, all rows",
    "as_shipped": "ours, scores and verdict, as shipped",
    "job": "ours, the whole job with its report",
    EVIDENTLY: "Evidently, DataDriftPreset, all rows",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    reference: int
    current: int
    numbers: int
    categories: int = 0

    @property
    def name(self) -> str:
        return f"{self.reference:,} + {self.current:,} rows × {self.numbers + self.categories}"


CASES = (
    Case(reference=10_000, current=1_000, numbers=20),
    Case(reference=2_000, current=2_000, numbers=64),
    Case(reference=100_000, current=100_000, numbers=20, categories=5),
)


@dataclass(frozen=True, kw_only=True)
class Turn:
    case: str
    side: str
    round: int
    cost: Cost
    work: float | None  # seconds without start, imports and reading; unknown of the job


@dataclass(frozen=True, kw_only=True)
class Agreement:
    case: str
    columns: int
    largest_difference: float


def others() -> list[str]:
    return []


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    cases = CASES[:2] if options.quick else CASES
    steps.expect(len(cases) * (1 + options.rounds * len(SIDES)))
    turns: list[Turn] = []
    agreements = []
    for number, case in enumerate(cases):
        steps.tell(f"{case.name}: making the rows")
        where = folder / str(number)
        shape = (case.reference, case.current, case.numbers, case.categories)
        call("-m", "bench.check_data", str(where), *map(str, shape))
        steps.done()
        for turn in range(1, options.rounds + 1):
            for side in SIDES:
                steps.tell(f"{case.name}, round {turn}/{options.rounds}: {SIDES[side]}")
                turns.append(_turn(case, side, turn, where))
                steps.done()
        agreements.append(_agreement(case, where))
    return Findings(
        title="A check",
        setup=(
            "Each in a process that ends, on the same two tables (with a column of predictions "
            f"beside those counted), {options.rounds} round(s). As shipped, our monitor looks at a "
            "sample of 2,000 rows a side. The job also reads the journal and writes Evidently's "
            "report as HTML and JSON; the preset is run and read as a dictionary, nothing is "
            "written. The work is what remains without the interpreter's start, imports and "
            "reading the files."
        ),
        tables=[_table(case, turns) for case in cases],
        notes=[
            f"{each.case}: the largest difference between our scores and Evidently's on all rows "
            f"is {each.largest_difference:.1e} ({each.columns} columns)."
            for each in agreements
        ],
        figures={"turns": turns, "agreements": agreements},
    )


def _turn(case: Case, side: str, number: int, where: Path) -> Turn:
    log = where / f"{side}.log"
    if side == "job":
        folder = where / "job"
        (folder / "result.json").unlink(missing_ok=True)
        shutil.rmtree(where / ".homeostat" / "reports", ignore_errors=True)
        cost = measure(python("-m", "monitor", "check", str(folder)), environment(), log)
        _require_report(where, folder)
        return Turn(case=case.name, side=side, round=number, cost=cost, work=None)
    command = python("-m", "bench.check_sides", side, str(where))
    cost = measure(command, environment(PYTHONPATH=str(ROOT)), log)
    work = json.loads((where / f"{side}.json").read_text())["seconds"]
    return Turn(case=case.name, side=side, round=number, cost=cost, work=work)


def _require_report(where: Path, folder: Path) -> None:
    """A job that found no rows, or whose report failed, would look fast."""
    if not list((where / ".homeostat" / "reports").glob("*/report.html")):
        raise SystemExit(f"the job left no report: {(folder / 'result.json').read_text()[:2000]}")


def _agreement(case: Case, where: Path) -> Agreement:
    ours, theirs = (
        json.loads((where / f"{side}.json").read_text())["scores"]
        for side in ("all_rows", EVIDENTLY)
    )
    if ours.keys() != theirs.keys():
        raise SystemExit(f"columns differ: {sorted(ours.keys() ^ theirs.keys())}")
    difference = max(abs(ours[name] - theirs[name]) for name in ours)
    return Agreement(case=case.name, columns=len(ours), largest_difference=difference)


def _table(case: Case, turns: Sequence[Turn]) -> Table:
    def of(side: str) -> list[Turn]:
        return [turn for turn in turns if (turn.case, turn.side) == (case.name, side)]

    rows = []
    for side, name in SIDES.items():
        mine = of(side)
        pairs = list(zip(mine, of(EVIDENTLY), strict=True))
        work = [turn.work for turn in mine if turn.work is not None]
        rows.append(
            [
                name,
                f"{median(turn.cost.wall for turn in mine):.2f}",
                f"{median(theirs.cost.wall / own.cost.wall for own, theirs in pairs):.1f}×",
                f"{median(turn.cost.cpu for turn in mine):.2f}",
                f"{median(turn.cost.peak_mib for turn in mine):,.0f}",
                f"{median(work):.3f}" if work else "",
                _times_faster(pairs),
            ]
        )
    heads = ["", "wall s", "times faster", "CPU s", "peak MiB", "work alone s", "times faster"]
    return Table(title=case.name, columns=heads, rows=rows)


def _times_faster(pairs: Sequence[tuple[Turn, Turn]]) -> str:
    ratios = [
        theirs.work / own.work for own, theirs in pairs if own.work is not None and theirs.work
    ]
    return f"{median(ratios):.1f}×" if ratios else ""
