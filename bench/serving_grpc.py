"""The Open Inference Protocol over gRPC: our server and MLServer, the same bytes by one client."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from bench.contest import free_port
from bench.environments import MLSERVER, mlserver_python
from bench.load import Load
from bench.options import Options, Steps
from bench.processes import ROOT, call, cpu_seconds, environment, python, running
from bench.results import Aim, Findings, Table, missed
from bench.serving_binary import Span

PACKAGES = ("torch", "uvloop", "grpcio", "protobuf")
OURS, PEER = "homeostat", "MLServer, max_batch_size 64"
CALLERS = 64
TIMES = 2.0  # as many requests as MLServer's
FEATURES = 32


def others() -> list[str]:
    return [MLSERVER]


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    peer = mlserver_python(steps.tell)
    steps.tell("making the model and its project")
    call("-m", "bench.model_project", str(folder))
    body = folder / "infer.bin"
    body.write_bytes(_request())
    steps.expect(2 * options.rounds)
    with ExitStack() as stack:
        ports = {OURS: free_port(), PEER: free_port()}
        processes = {
            OURS: _start(
                stack,
                python("-m", "serving", "--project", str(folder)),
                folder / "ours.log",
                HOMEOSTAT_SERVING_PORT=str(free_port()),
                HOMEOSTAT_SERVING_GRPC_PORT=str(ports[OURS]),
            ),
            PEER: _start(
                stack,
                [
                    *(str(peer), "-m", "bench.peers.mlserver_app", str(folder)),
                    *(str(free_port()), str(ports[PEER])),
                ],
                folder / "peer.log",
            ),
        }
        for name, port in ports.items():
            steps.tell(f"{name}: starting")
            _load(port, body, options.warm_up)
        spans = []
        for number in range(options.rounds):
            for name in ports if number % 2 else reversed(ports):
                steps.tell(f"{number + 1}/{options.rounds}, {name}")
                spans.append(_span(name, processes[name], ports[name], body, options))
                steps.done()
    return _findings(spans, options)


def _request() -> bytes:
    from serving.open_inference import open_inference_pb2 as messages

    row = np.random.default_rng(0).standard_normal((1, FEATURES)).astype("<f4")
    request = messages.ModelInferRequest(model_name="bench")
    tensor = request.inputs.add(name="input", datatype="FP32")
    tensor.shape.extend(row.shape)
    request.raw_input_contents.append(row.tobytes())
    data: bytes = request.SerializeToString()
    return data


def _start(stack: ExitStack, command: Sequence[str], log: Path, **more: str) -> psutil.Process:
    environ = environment(PYTHONPATH=str(ROOT), **more)
    return stack.enter_context(running(command, environ, log))


def _load(port: int, body: Path, seconds: float) -> Load:
    address = f"127.0.0.1:{port}"
    done = subprocess.run(
        python("-m", "bench.grpc_client", address, str(body), str(CALLERS), str(seconds)),
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{address} does not answer:\n{done.stderr[-2000:]}")
    return Load(**json.loads(done.stdout))


def _span(name: str, process: psutil.Process, port: int, body: Path, options: Options) -> Span:
    before = cpu_seconds(process)
    got = _load(port, body, options.seconds)
    if got.errors:
        raise SystemExit(f"{name}: {got.errors} errors")
    return Span(name=name, load=got, cpu=cpu_seconds(process) - before)


def _findings(spans: Sequence[Span], options: Options) -> Findings:
    by_name = {name: [span for span in spans if span.name == name] for name in (OURS, PEER)}
    ratio = median(
        ours.load.per_second / theirs.load.per_second
        for ours, theirs in zip(by_name[OURS], by_name[PEER], strict=True)
    )
    aims = [
        Aim(said=f"{ratio:.1f} times MLServer's requests; {TIMES:g} are asked", met=ratio >= TIMES)
    ]
    return Findings(
        title="gRPC",
        setup=(
            f"ModelInfer with one row of {FEATURES} float32 as raw contents, MLP 32-128-64-3, "
            f"{CALLERS} callers of one grpc.aio channel on the same cores, which take most of a "
            "core themselves. Ours logs every row, MLServer logs nothing. "
            f"{options.seconds:g} s a figure, {options.rounds} round(s), in turns."
        ),
        tables=[
            Table(
                title="ModelInfer",
                columns=["server", "requests/s", "p50 / p99 ms", "CPU µs a request"],
                rows=[_row(name, found) for name, found in by_name.items()],
            )
        ],
        notes=[str(aim) for aim in aims],
        figures={"spans": spans, "ratio": ratio},
        missed=missed(aims, quick=options.quick),
    )


def _row(name: str, spans: Sequence[Span]) -> list[str]:
    loads = [span.load for span in spans]
    return [
        name,
        f"{median(load.per_second for load in loads):,.0f}",
        f"{median(load.p50 for load in loads):.1f} / {median(load.p99 for load in loads):.1f}",
        f"{median(span.microseconds for span in spans):.0f}",
    ]
