"""How long people wait: for `homeostat --help`, and for a server whose model is cached."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, stdev

from bench import contest
from bench.contest import Contestant
from bench.options import Options, Steps
from bench.processes import call, environment, python
from bench.results import Findings, Table

PACKAGES = ("click", "torch", "uvicorn")
HELP_TARGET, READY_TARGET = 0.5, 5.0
RUNS_OF_HELP = 20
STARTS_A_ROUND = 3


def others() -> list[str]:
    return []


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    helps = 5 if options.quick else RUNS_OF_HELP
    starts = 1 if options.quick else STARTS_A_ROUND * options.rounds
    steps.expect(helps + 1 + starts)
    steps.tell("homeostat --help")
    _help()  # compiles what is not compiled yet
    waits = []
    for _ in range(helps):
        waits.append(_help())
        steps.done()
    steps.tell("making the model and its project")
    call("-m", "bench.model_project", str(folder))
    steps.done()
    visits, told = _starts(starts, folder, options, steps)
    ready = [visit.ready for visit in visits]
    return Findings(
        title="Waiting",
        setup=(
            "Wall time from the start of the process: of `homeostat --help` to its end, of "
            "`python -m serving` with its torch model in the cache (and MLflow away) to its first "
            "right answer; files are in the page cache."
        ),
        tables=[
            Table(
                title="Seconds",
                columns=["", "runs", "median", "mean ± deviation", "lowest", "highest", "target"],
                rows=[
                    _row("homeostat --help", waits, f"< {HELP_TARGET:g}"),
                    _row("the server's first answer", ready, f"< {READY_TARGET:g}"),
                    _row("what its log says (ready in)", told, f"< {READY_TARGET:g}"),
                ],
            )
        ],
        notes=[
            "The server holds "
            f"{median(visit.memory for visit in visits):,.0f} MiB (PSS) once it answers."
        ],
        figures={"help": waits, "ready": ready, "ready_by_log": told, "visits": visits},
    )


def _help() -> float:
    command = [str(Path(sys.executable).parent / "homeostat"), "--help"]
    began = time.perf_counter()
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode != 0 or "Commands" not in done.stdout:
        raise SystemExit(f"homeostat --help failed: {done.stderr[-2000:]}")
    return seconds


def _starts(
    count: int, folder: Path, options: Options, steps: Steps
) -> tuple[list[contest.Visit], list[float]]:
    server = Contestant(
        name="homeostat",
        command=lambda project, _: python("-m", "serving", "--project", str(project)),
        own=True,
    )
    visits = []
    for number in range(1, count + 1):
        steps.tell(f"start {number}/{count} of the server")
        with contest.started(server, folder) as entered:
            visits.append(entered.visit(number))
        steps.done()
    log = contest.log_of(server, folder).read_text()
    told = [float(seconds) for seconds in re.findall(r"ready in (\d+\.\d+) s", log)]
    return visits, told


def _row(name: str, seconds: Sequence[float], target: str) -> list[str]:
    deviation = stdev(seconds) if len(seconds) > 1 else 0.0
    return [
        name,
        str(len(seconds)),
        f"{median(seconds):.3f}",
        f"{mean(seconds):.3f} ± {deviation:.3f}",
        f"{min(seconds):.3f}",
        f"{max(seconds):.3f}",
        target,
    ]
