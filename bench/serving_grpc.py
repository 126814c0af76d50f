"""The Open Inference Protocol over gRPC: our server and MLServer, asked for the same by h2load."""

from __future__ import annotations

import re
import shutil
import struct
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
CALLERS, CLIENTS = 64, 4  # calls open at once, and connections they share
TIMES = 2.0  # as many requests as MLServer's
FEATURES = 32


def others() -> list[str]:
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not installed; `apt-get install nghttp2-client` brings it")
    said = subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=True)
    return [MLSERVER, said.stdout.strip()]


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
        said: dict[str, str] = {}
        for name, port in ports.items():
            steps.tell(f"{name}: starting")
            said[name] = _check(port, body)
            _load(port, body, options.warm_up)
        if said[OURS] != said[PEER]:
            raise SystemExit(f"they say different things: {said}")
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


def _check(port: int, body: Path) -> str:
    """What the server says, once it does."""
    done = subprocess.run(
        python("-m", "bench.grpc_ask", f"127.0.0.1:{port}", str(body)),
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"port {port} does not answer:\n{done.stderr[-2000:]}")
    return done.stdout


def _load(port: int, body: Path, seconds: float) -> Load:
    """gRPC's frames by a client that costs little: a message is the body behind five bytes."""
    data = body.read_bytes()
    framed, log = body.with_suffix(".framed"), body.with_suffix(".log")
    framed.write_bytes(struct.pack(">BI", 0, len(data)) + data)
    log.unlink(missing_ok=True)
    url = f"http://127.0.0.1:{port}/inference.GRPCInferenceService/ModelInfer"
    done = subprocess.run(
        [
            *("h2load", f"--duration={max(1, round(seconds))}", f"--clients={CLIENTS}"),
            *(f"--max-concurrent-streams={CALLERS // CLIENTS}", f"--data={framed}"),
            *("--header=content-type: application/grpc", "--header=te: trailers"),
            *(f"--log-file={log}", url),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"(\d+) succeeded, (\d+) failed", done.stdout)
    if found is None:
        raise SystemExit(f"h2load failed:\n{done.stdout}{done.stderr}")
    times = np.loadtxt(log, usecols=2) / 1000  # ms
    return Load(
        requests=int(found[1]),
        per_second=int(found[1]) / max(1, round(seconds)),
        p50=float(np.percentile(times, 50)),
        p99=float(np.percentile(times, 99)),
        errors=int(found[2]),
    )


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
            f"{CALLERS} calls open at once on {CLIENTS} connections, h2load on the same cores. "
            "Ours logs every row (durability spool, commits every 3 s), MLServer logs nothing. "
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
