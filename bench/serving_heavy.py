"""A model that is most of the work: CPU a row of the server beside that of torch alone."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from bench import load
from bench.image_project import SHAPE
from bench.load import require_wrk
from bench.options import Options, Steps
from bench.processes import ROOT, call, cpu_seconds, environment, python
from bench.results import Aim, Findings, Table, missed
from bench.serving_binary import LENGTH, OURS, PATH, Server, request_of, start, wait_for

PACKAGES = ("torch", "uvicorn", "uvloop", "httptools", "numpy")
CONNECTIONS = 32
TIMES = 1.1  # as much CPU a row as torch alone at the same size of batch


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Once the server, and once torch alone with batches as large."""

    rows: float  # of a batch, on average
    served: float  # CPU microseconds a row
    bare: float
    per_second: float


def others() -> list[str]:
    return [require_wrk()]


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    require_wrk()
    steps.tell("making the model and its project")
    call("-m", "bench.image_project", str(folder))
    image = np.random.default_rng(0).standard_normal((1, *SHAPE))
    request = request_of(image)
    script = load.write_binary_script(
        request.body, folder, path=PATH, headers={LENGTH: str(request.head)}
    )
    steps.expect(options.rounds)
    turns = []
    with ExitStack() as stack:
        server = start(stack, OURS, folder, "serving", "--project", str(folder))
        wait_for(server, request)
        load.apply(server.url, script, connections=CONNECTIONS, seconds=options.warm_up)
        for number in range(1, options.rounds + 1):
            steps.tell(f"{number}/{options.rounds}")
            turns.append(_turn(server, script, folder, options))
            steps.done()
    return _findings(turns, options)


def _turn(server: Server, script: Path, folder: Path, options: Options) -> Turn:
    batches, before = _batches(server), cpu_seconds(server.process)
    got = load.apply(server.url, script, connections=CONNECTIONS, seconds=options.seconds)
    used = cpu_seconds(server.process) - before
    after = _batches(server)
    if got.errors:
        raise SystemExit(f"{got.errors} errors")
    rows = (after[0] - batches[0]) / max(1.0, after[1] - batches[1])
    return Turn(
        rows=rows,
        served=1e6 * used / got.requests,
        bare=_bare(folder, max(1, round(rows)), options.seconds),
        per_second=got.per_second,
    )


def _batches(server: Server) -> tuple[float, float]:
    """Rows and batches so far, by the server's own metrics."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = {
        kind: float(line.rpartition(" ")[2])
        for kind in ("sum", "count")
        for line in lines
        if line.startswith(f"homeostat_batch_rows_{kind}")
    }
    return found["sum"], found["count"]


def _bare(folder: Path, rows: int, seconds: float) -> float:
    done = subprocess.run(
        python("-m", "bench.bare_torch", str(folder), str(rows), str(seconds)),
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout)["microseconds"])


def _findings(turns: Sequence[Turn], options: Options) -> Findings:
    ratio = median(turn.served / turn.bare for turn in turns)
    aims = [
        Aim(
            said=f"{ratio:.3f} times the CPU a row of torch alone; at most {TIMES:g} are asked",
            met=ratio <= TIMES,
        )
    ]
    rows = [
        [
            str(number),
            f"{turn.rows:.1f}",
            f"{turn.per_second:.0f}",
            f"{turn.served:,.0f}",
            f"{turn.bare:,.0f}",
            f"{turn.served / turn.bare:.3f}×",
        ]
        for number, turn in enumerate(turns, 1)
    ]
    size = "x".join(map(str, SHAPE))
    return Findings(
        title="A heavier model",
        setup=(
            f"A residual network of ResNet-18's size on images of {size}, one a request as a "
            f"binary tensor, {CONNECTIONS} connections that never pause, one thread of torch. "
            "Beside it the same exported network in a loop without a server, with batches as large "
            "as the server's were on average. Predictions are logged, images are not. "
            f"{options.seconds:g} s a figure."
        ),
        tables=[
            Table(
                title="CPU a row",
                columns=["round", "rows a batch", "rows/s", "server, µs", "torch alone, µs", ""],
                rows=rows,
            )
        ],
        notes=[str(aim) for aim in aims],
        figures={"turns": turns, "ratio": ratio},
        missed=missed(aims, quick=options.quick),
    )
