"""`homeostat score` over a Parquet file, against a script that reads, predicts and writes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from bench.options import Options, Steps
from bench.results import Findings, Table

PACKAGES = ("torch", "numpy", "pyarrow")
FEATURES = 32
OURS, LOGGED, BARE = "homeostat score", "homeostat score --log", "a script of torch and pyarrow"
# What somebody writes who has nothing else: no ids, no probabilities by name, no bad rows, and
# from the beginning again when it is killed.
SCRIPT = """
import sys
import pyarrow as pa, pyarrow.parquet as pq, torch
torch.set_num_threads(len(__import__("os").sched_getaffinity(0)))
model = torch.export.load(sys.argv[1]).module()
file = pq.ParquetFile(sys.argv[2])
writer = None
with torch.inference_mode():
    for batch in file.iter_batches(8192):
        rows = torch.stack([torch.from_numpy(c.to_numpy()) for c in batch.columns], 1)
        said = torch.softmax(model(rows), 1)
        table = pa.table([*batch.columns, pa.array(said.argmax(1).numpy())],
                         names=[*batch.schema.names, "prediction"])
        writer = writer or pq.ParquetWriter(sys.argv[3], table.schema, compression="zstd")
        writer.write_table(table)
writer.close()
"""


def others() -> Sequence[str]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Turn:
    name: str
    rows: int
    seconds: float
    cpu: float
    peak_mib: float


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    project, counts = (
        folder / "project",
        (20_000, 100_000) if options.quick else (200_000, 2_000_000),
    )
    subprocess.run([sys.executable, "-m", "bench.model_project", str(project)], check=True)
    steps.expect(options.rounds * len(counts) * 3)
    turns = []
    for count in counts:
        source = _rows(folder / f"{count}.parquet", count)
        for number in range(options.rounds):
            for name in (OURS, BARE, LOGGED):
                steps.tell(f"{count:,} rows: {name}")
                target = folder / f"{count}-{number}-{name.replace(' ', '')}.parquet"
                turns.append(_turn(name, count, _command(name, project, source, target)))
                steps.done()
    return Findings(
        title="Batch scoring",
        setup=f"Parquet of {FEATURES} float32 columns to Parquet, a network of 32-128-64-3; the "
        "time is that of the whole command, the start of Python and torch included.",
        tables=[_table(turns, counts)],
        notes=[_steady(turns, counts)],
        figures={"turns": [asdict(turn) for turn in turns]},
    )


def _rows(path: Path, count: int) -> Path:
    random = np.random.default_rng(0)
    columns = {f"x{i}": random.standard_normal(count).astype(np.float32) for i in range(FEATURES)}
    pq.write_table(pa.table(columns), path)
    return path


def _command(name: str, project: Path, source: Path, target: Path) -> list[str]:
    if name == BARE:
        model = next(project.rglob("model.pt2"))
        return [sys.executable, "-c", SCRIPT, str(model), str(source), str(target)]
    more = ["--log"] if name == LOGGED else []
    ours = [sys.executable, "-P", "-m", "loop", "--project", str(project), "score"]
    return [*ours, str(source), str(target), *more]


def _turn(name: str, rows: int, command: list[str]) -> Turn:
    began = time.perf_counter()
    process = psutil.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ
    )
    peak, cpu = 0.0, 0.0
    while process.poll() is None:
        try:
            family = [process, *process.children(recursive=True)]
            peak = max(peak, sum(each.memory_info().rss for each in family) / 2**20)
            cpu = max(cpu, sum(sum(each.cpu_times()[:2]) for each in family))
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    if process.returncode:
        sys.exit(f"{name} failed: {json.dumps(process.stderr.read().decode()[-2000:])}")
    return Turn(name=name, rows=rows, seconds=seconds, cpu=cpu, peak_mib=peak)


def _table(turns: Sequence[Turn], counts: Sequence[int]) -> Table:
    rows = []
    for count in counts:
        for name in (OURS, LOGGED, BARE):
            mine = [turn for turn in turns if turn.name == name and turn.rows == count]
            seconds = statistics.median(turn.seconds for turn in mine)
            rows.append(
                [
                    f"{count:,} rows, {name}",
                    f"{seconds:.1f}",
                    f"{count / seconds:,.0f}",
                    f"{statistics.median(turn.cpu for turn in mine):.1f}",
                    f"{statistics.median(turn.peak_mib for turn in mine):,.0f}",
                ]
            )
    columns = ("", "seconds", "rows/s", "CPU seconds", "peak MiB")
    return Table(title="The whole command", columns=columns, rows=rows)


def _steady(turns: Sequence[Turn], counts: Sequence[int]) -> str:
    """Rows a second without what every start costs."""
    found = {}
    for name in (OURS, LOGGED, BARE):
        times = [
            statistics.median(t.seconds for t in turns if t.name == name and t.rows == count)
            for count in counts
        ]
        found[name] = (counts[1] - counts[0]) / max(1e-9, times[1] - times[0])
    told = ", ".join(f"{name} {speed:,.0f} rows/s" for name, speed in found.items())
    return f"Between the two sizes, which leaves the start out: {told}."
