"""64 rows as one binary tensor (Open Inference Protocol): CPU beside the transport's own."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from numpy.typing import NDArray

from bench import load
from bench.contest import free_port
from bench.load import Load, require_wrk
from bench.options import Options, Steps
from bench.processes import ROOT, call, cpu_seconds, environment, python, running
from bench.results import Aim, Findings, Table, missed

PACKAGES = ("torch", "uvicorn", "uvloop", "httptools", "numpy")
OURS, UNLOGGED = "homeostat", "homeostat, logging off"
TRANSPORT = "transport alone, the same bytes"
ROWS, FEATURES = 64, 32
PATH = "/v2/models/bench/infer"
LENGTH = "Inference-Header-Content-Length"
CONNECTIONS = 16
TIMES = 3.0  # as much CPU a request as the transport takes for the same bytes
START_LIMIT = 60.0


@dataclass(frozen=True, kw_only=True)
class Span:
    name: str
    load: Load
    cpu: float  # seconds of the server

    @property
    def microseconds(self) -> float:
        return 1e6 * self.cpu / max(1, self.load.requests)


@dataclass(frozen=True)
class Server:
    name: str
    process: psutil.Process
    url: str


@dataclass(frozen=True)
class Request:
    body: bytes
    head: int  # bytes of JSON before the tensor


def others() -> list[str]:
    return [require_wrk()]


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    require_wrk()
    steps.tell("making the model and its project")
    for project in (folder, folder / "unlogged"):
        call("-m", "bench.model_project", str(project))
    request = request_of(np.random.default_rng(0).standard_normal((ROWS, FEATURES)))
    rounds = options.rounds if options.quick else max(5, options.rounds)
    steps.expect(3 * rounds)
    with ExitStack() as stack:
        ours = start(stack, OURS, folder, "serving", "--project", str(folder))
        unlogged = start(
            stack, UNLOGGED, folder, "bench.peers.unlogged", "--project", str(folder / "unlogged")
        )
        wait_for(unlogged, request)
        answer = wait_for(ours, request)
        (folder / "answer.bin").write_bytes(answer)
        (folder / "path.txt").write_text(PATH)
        alone = start(stack, TRANSPORT, folder, "bench.peers.same_bytes", str(folder))
        wait_for(alone, request)
        spans = _spans([ours, unlogged, alone], request, rounds, options, steps, folder)
    return _findings(spans, request, len(answer), rounds, options)


def request_of(rows: NDArray[np.float64]) -> Request:
    """One binary tensor in, and all outputs as such."""
    data = rows.astype("<f4").tobytes()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "input",
                    "shape": list(rows.shape),
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": len(data)},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    return Request(head + data, len(head))


def start(stack: ExitStack, name: str, folder: Path, module: str, *arguments: str) -> Server:
    port = free_port()
    environ = environment(PYTHONPATH=str(ROOT), HOMEOSTAT_SERVING_PORT=str(port))
    command = python("-m", module, *arguments)
    if name == TRANSPORT:
        command.append(str(port))
    process = stack.enter_context(running(command, environ, folder / f"{module}.log"))
    return Server(name, process, f"http://127.0.0.1:{port}")


def wait_for(server: Server, request: Request) -> bytes:
    """Once it answers. Raises SystemExit where it does not."""
    asked = urllib.request.Request(server.url + PATH, request.body, {LENGTH: str(request.head)})
    deadline = time.monotonic() + START_LIMIT
    while True:
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                found: bytes = answer.read()
                return found
        except OSError as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"{server.name} does not answer: {error}") from None
            time.sleep(0.05)


def _spans(
    servers: Sequence[Server],
    request: Request,
    rounds: int,
    options: Options,
    steps: Steps,
    folder: Path,
) -> list[Span]:
    script = load.write_binary_script(
        request.body, folder, path=PATH, headers={LENGTH: str(request.head)}
    )
    spans = []
    for server in servers:
        load.apply(server.url, script, connections=CONNECTIONS, seconds=options.warm_up)
    for number in range(rounds):
        for server in servers if number % 2 else servers[::-1]:
            steps.tell(f"{number + 1}/{rounds}, {server.name}")
            before = cpu_seconds(server.process)
            got = load.apply(server.url, script, connections=CONNECTIONS, seconds=options.seconds)
            used = cpu_seconds(server.process) - before
            if got.errors:
                raise SystemExit(f"{server.name}: {got.errors} errors")
            spans.append(Span(name=server.name, load=got, cpu=used))
            steps.done()
    return spans


def _findings(
    spans: Sequence[Span], request: Request, answered: int, rounds: int, options: Options
) -> Findings:
    by_name = {name: [s for s in spans if s.name == name] for name in (OURS, UNLOGGED, TRANSPORT)}
    ratio = median(
        ours.microseconds / theirs.microseconds
        for ours, theirs in zip(by_name[OURS], by_name[TRANSPORT], strict=True)
    )
    aims = [
        Aim(
            said=f"{ratio:.2f} times the CPU of the transport with the same bytes; at most "
            f"{TIMES:g} are asked",
            met=ratio <= TIMES,
        )
    ]
    return Findings(
        title="A binary tensor",
        setup=(
            f"{ROWS} rows of {FEATURES} float32 a request by the Open Inference Protocol's binary "
            f"extension over REST ({len(request.body):,} bytes there, {answered:,} back), MLP "
            f"32-128-64-3, {CONNECTIONS} connections, every row logged (durability spool, commits "
            f"every 3 s). The transport alone reads and writes as many bytes. {rounds} "
            f"alternations of {options.seconds:g} s."
        ),
        tables=[
            Table(
                title="CPU of the server",
                columns=["", "µs a request", "µs a row", "requests/s", "p50 / p99 ms"],
                rows=[_row(name, found) for name, found in by_name.items()],
            )
        ],
        notes=[str(aim) for aim in aims],
        figures={"spans": spans, "ratio": ratio},
        missed=missed(aims, quick=options.quick),
    )


def _row(name: str, spans: Sequence[Span]) -> list[str]:
    cpu = median(span.microseconds for span in spans)
    return [
        name,
        f"{cpu:.0f}",
        f"{cpu / ROWS:.2f}",
        f"{median(span.load.per_second for span in spans):,.0f}",
        f"{median(s.load.p50 for s in spans):.2f} / {median(s.load.p99 for s in spans):.2f}",
    ]
