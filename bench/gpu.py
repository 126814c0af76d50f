"""A model on a GPU, as the server runs it, against bare torch at the same batch size.

Both take rows that lie in the machine's memory and give answers there. Where there is no GPU,
nothing is measured, and it says so.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.options import Options, Steps
from bench.results import Aim, Findings, Table, missed
from homeostat.model_runtime import gpu
from homeostat.model_runtime.contract import Batch, LoadedModel
from homeostat.model_runtime.exported_program import open_program
from homeostat.model_runtime.placement import Placement, Precision
from homeostat.model_runtime.torch_program import FILE, load_torch
from homeostat.records import Feature, ModelSpec, Task

PACKAGES = ("torch", "numpy")
BATCHES = (16, 64, 256, 1024)
LEAST = 0.9  # of bare torch's throughput
CLASSES = 10


def others() -> Sequence[str]:
    if not torch.cuda.is_available():
        return ()
    return (f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}",)


class Block(nn.Module):
    """Two convolutions and a way around them, as in a ResNet."""

    def __init__(self, given: int, found: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(given, found, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(found)
        self.second = nn.Conv2d(found, found, 3, 1, 1, bias=False)
        self.last = nn.BatchNorm2d(found)
        self.around = nn.Conv2d(given, found, 1, stride) if given != found else nn.Identity()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.norm(self.first(rows)))
        return torch.relu(self.last(self.second(inner)) + self.around(rows))


def convolutions() -> nn.Module:
    """As many weights as ResNet-18, on images of 3x64x64."""
    widths = ((64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1))
    deeper = ((128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1))
    blocks = [Block(*each) for each in (*widths, *deeper)]
    first = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
    last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES))
    return nn.Sequential(first, *blocks, last)


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Linear(512, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, CLASSES)
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolutions": (convolutions, (3, 64, 64)),
    "dense": (dense, (512,)),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    model: str
    precision: Precision
    rows: int
    ours: float  # rows a second
    bare: float
    copy_ms: float  # of a batch, there and back
    compute_ms: float
    queue_ms: float  # from the event loop to the thread and back

    @property
    def share(self) -> float:
        return self.ours / self.bare


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    if not torch.cuda.is_available():
        sys.exit("There is no GPU here (torch.cuda.is_available() is false): nothing was measured.")
    precisions: tuple[Precision, ...] = ("float32", "bf16")
    steps.expect(len(MODELS) * len(precisions) * len(BATCHES))
    cases = []
    for name in MODELS:
        exported = _export(name, folder / name)
        for precision in precisions:
            for rows in BATCHES:
                steps.tell(f"{name}, {precision}, {rows} rows")
                cases.append(_case(name, precision, rows, exported, options))
                steps.done()
    aims = [
        Aim(
            said=f"{each.model}, {each.precision}, {each.rows} rows: {each.share:.0%} of bare "
            f"torch, at least {LEAST:.0%}",
            met=each.share >= LEAST,
        )
        for each in cases
    ]
    return Findings(
        title="A model on a GPU",
        setup="Rows in the machine's memory to answers there: a loaded version's `predict`, with "
        "probabilities and classes, against bare torch (copy, module, copy back) on as many rows.",
        tables=[_table(cases)],
        notes=[str(aim) for aim in aims],
        figures={"cases": cases},
        missed=missed(aims, quick=options.quick),
    )


def _export(name: str, folder: Path) -> Path:
    make, shape = MODELS[name]
    torch.manual_seed(0)
    path = folder / FILE
    path.parent.mkdir(parents=True)
    rows = {0: torch.export.Dim("rows")}
    program = torch.export.export(make().eval(), (torch.zeros(2, *shape),), dynamic_shapes=(rows,))
    torch.export.save(program, path)
    return folder


def _case(name: str, precision: Precision, rows: int, folder: Path, options: Options) -> Case:
    make, shape = MODELS[name]
    placement = Placement(device="cuda", precision=precision, memory=0.9, batch_rows=rows)
    count = int(np.prod(shape))
    spec = ModelSpec(
        model=name,
        version="1",
        runtime="torch",
        task=Task.CLASSIFICATION,
        features=tuple(Feature(name=f"x{i}") for i in range(count)),
        tensor_shape=shape,
    )
    model = load_torch(folder, spec, embedding=None, classes=(), threads=1, placement=placement)
    torch.manual_seed(0)
    bare = make().eval().cuda()
    matrix = np.random.default_rng(0).standard_normal((rows, count)).astype(np.float32)
    pairs = [
        (
            _rate(lambda: model.predict(Batch(rows, matrix=matrix)), rows, options.seconds),
            _rate(lambda: _bare(bare, matrix, shape, precision), rows, options.seconds),
        )
        for _ in range(options.rounds)
    ]
    copy, compute = _apart(folder, placement, torch.from_numpy(matrix).reshape(rows, *shape))
    return Case(
        model=name,
        precision=precision,
        rows=rows,
        ours=statistics.median(ours for ours, _ in pairs),
        bare=statistics.median(theirs for _, theirs in pairs),
        copy_ms=copy,
        compute_ms=compute,
        queue_ms=asyncio.run(_handover(model)),
    )


def _bare(module: nn.Module, matrix: Any, shape: tuple[int, ...], precision: Precision) -> Any:
    """What somebody writes who has torch and nothing else."""
    half = precision == "bf16"
    with torch.inference_mode(), torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
        rows = torch.from_numpy(matrix).reshape(-1, *shape).to("cuda")
        return torch.softmax(module(rows).float(), dim=1).cpu().numpy()


def _rate(work: Callable[[], object], rows: int, seconds: float) -> float:
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        work()
        done += rows
    torch.cuda.synchronize()
    return done / (time.perf_counter() - began)


def _apart(folder: Path, placement: Placement, rows: torch.Tensor) -> tuple[float, float]:
    """Milliseconds of the GPU's own clock: copies, and what is computed between them."""
    with torch.inference_mode():
        program = open_program(folder / FILE, None, rows[:2].cuda(), "it", "cuda")
        ferry, half = gpu.Ferry(placement), placement.precision == "bf16"
        copies, computed = [], []
        for _ in range(20):
            # torch gives its events no types
            marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)]  # type: ignore[no-untyped-call]
            marks[0].record()
            there = ferry.there(rows)
            marks[1].record()
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
                outputs = program.run(there)
            marks[2].record()
            ferry.back(outputs)
            marks[3].record()
            torch.cuda.synchronize()
            copies.append(marks[0].elapsed_time(marks[1]) + marks[2].elapsed_time(marks[3]))
            computed.append(marks[1].elapsed_time(marks[2]))
    return statistics.median(copies), statistics.median(computed)


async def _handover(model: LoadedModel) -> float:
    """What it costs that the event loop does not wait: to a thread and back, with nothing done."""
    assert model.loop_rows == 0, "a model on a GPU has a thread of its own"
    loop, found = asyncio.get_running_loop(), []
    with ThreadPoolExecutor(1) as thread:
        for _ in range(200):
            began = time.perf_counter()
            await loop.run_in_executor(thread, lambda: None)
            found.append(time.perf_counter() - began)
    return statistics.median(found) * 1000


def _table(cases: Sequence[Case]) -> Table:
    columns = ("model", "rows", "ours, rows/s", "bare torch", "share", "copy", "queue", "compute")
    return Table(
        title="Throughput, and milliseconds of a batch",
        columns=columns,
        rows=[
            [
                f"{each.model}, {each.precision}",
                f"{each.rows}",
                f"{each.ours:,.0f}",
                f"{each.bare:,.0f}",
                f"{each.share:.0%}",
                f"{each.copy_ms:.3f}",
                f"{each.queue_ms:.3f}",
                f"{each.compute_ms:.3f}",
            ]
            for each in cases
        ],
    )
