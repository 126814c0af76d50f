"""HTTP servers that take turns under the same load."""

from __future__ import annotations

import json
import math
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from bench import load
from bench.load import Load
from bench.options import Options, Steps
from bench.processes import ROOT, cpu_seconds, environment, memory_mib, running
from bench.results import Table

Rows = Sequence[Sequence[float]]

START_LIMIT = 120.0
COOL_DOWN = 0.5  # seconds, so that one contestant's end is not the next one's beginning


@dataclass(frozen=True, kw_only=True)
class Speech:
    """How a server wants to be asked for rows, and where its answer has what is compared."""

    path: str
    ask: Callable[[Rows], Any]  # what becomes the body, as JSON
    said: Callable[[Any], Sequence[Any]]
    member: str = "probabilities"  # of example.json, what has to be said


def _v2(rows: Rows) -> dict[str, Any]:
    shape = [len(rows), len(rows[0])]
    data = [value for row in rows for value in row]
    return {"inputs": [{"name": "rows", "shape": shape, "datatype": "FP32", "data": data}]}


NATIVE = Speech(
    path="/predict",
    ask=lambda rows: {"rows": rows},
    said=lambda answer: answer["probabilities"],
)
BARE = replace(NATIVE, said=lambda answer: answer)  # nothing else in the answer
V2 = Speech(
    path="/v2/models/bench/infer",
    ask=_v2,
    said=lambda answer: next(
        each["data"] for each in answer["outputs"] if each["name"] == "probabilities"
    ),
)


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A server to be started with a port, and a folder of bench.model_project."""

    name: str
    command: Callable[[Path, int], Sequence[str]]
    environ: Mapping[str, str] = field(default_factory=dict)
    own: bool = False  # the one the others are compared with
    constant: bool = False  # has no model: its answer is not looked at
    speech: Speech = NATIVE


@dataclass(frozen=True, kw_only=True)
class Span:
    """One contestant under one number of connections in one round."""

    name: str
    round: int
    connections: int
    load: Load
    cpu: float  # seconds of the server's processes

    @property
    def cpu_per_thousand(self) -> float:
        return 1000 * self.cpu / max(1, self.load.requests)


@dataclass(frozen=True, kw_only=True)
class Visit:
    """What a contestant showed in one round beside its answers."""

    name: str
    round: int
    ready: float  # seconds from the start of the process to its first right answer
    memory: float  # MiB, after the load


@dataclass(frozen=True)
class Outcome:
    contestants: Sequence[Contestant]
    options: Options
    spans: Sequence[Span]
    visits: Sequence[Visit]

    def figures(self) -> dict[str, Any]:
        return {"spans": self.spans, "visits": self.visits}

    def of(self, name: str, connections: int) -> list[Span]:
        """In the order of the rounds."""
        return [s for s in self.spans if s.name == name and s.connections == connections]

    def middle(self, name: str, connections: int, what: Callable[[Span], float]) -> float:
        return median(what(span) for span in self.of(name, connections))

    def ratio(self, name: str, connections: int) -> float:
        """How many times as many requests our own contestant answers."""
        own = next(each.name for each in self.contestants if each.own)
        pairs = zip(self.of(own, connections), self.of(name, connections), strict=True)
        return median(ours.load.per_second / theirs.load.per_second for ours, theirs in pairs)

    @property
    def errors(self) -> dict[str, int]:
        names = [each.name for each in self.contestants]
        counts = {n: sum(s.load.errors for s in self.spans if s.name == n) for n in names}
        return {name: count for name, count in counts.items() if count}


@dataclass(frozen=True)
class Started:
    """A contestant that has answered rightly."""

    name: str
    process: psutil.Process
    url: str
    body: bytes
    path: str
    ready: float

    def visit(self, number: int) -> Visit:
        return Visit(
            name=self.name, round=number, ready=self.ready, memory=memory_mib(self.process)
        )

    def span(self, number: int, connections: int, script: Path, seconds: float) -> Span:
        before = cpu_seconds(self.process)
        got = load.apply(self.url, script, connections=connections, seconds=seconds)
        used = cpu_seconds(self.process) - before
        return Span(name=self.name, round=number, connections=connections, load=got, cpu=used)


@contextmanager
def started(each: Contestant, folder: Path) -> Iterator[Started]:
    """On a free port until the end of the block."""
    example = json.loads((folder / "example.json").read_text())
    speech = each.speech
    body = json.dumps(speech.ask(example["request"]["rows"])).encode()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = log_of(each, folder)
    environ = environment(
        **{"PYTHONPATH": str(ROOT), "HOMEOSTAT_SERVING_PORT": str(port), **each.environ}
    )
    began = time.perf_counter()
    with running(each.command(folder, port), environ, log) as process:
        expected = None if each.constant else example[speech.member]
        answer = _wait_for_answer(process, url + speech.path, body, log)
        if expected is not None:
            _check(url, speech.said(answer), expected)
        yield Started(each.name, process, url, body, speech.path, time.perf_counter() - began)
    time.sleep(COOL_DOWN)


def log_of(each: Contestant, folder: Path) -> Path:
    return folder / f"{each.name.replace(' ', '-').replace('/', '-')}.log"


def hold(
    contestants: Sequence[Contestant], folder: Path, options: Options, steps: Steps
) -> Outcome:
    """A B C … A B C …: every round starts, warms, loads and ends each contestant once."""
    spans: list[Span] = []
    visits: list[Visit] = []
    steps.expect(options.rounds * len(contestants) * (1 + len(options.connections)))
    for number in range(1, options.rounds + 1):
        for each in contestants:
            label = f"round {number}/{options.rounds}, {each.name}"
            steps.tell(f"{label}: starting")
            with started(each, folder) as entered:
                script = load.write_script(entered.body, folder, path=entered.path)
                load.apply(entered.url, script, connections=16, seconds=options.warm_up)
                steps.done()
                for count in options.connections:
                    steps.tell(f"{label}: {count} connection{'s' if count > 1 else ''}")
                    spans.append(entered.span(number, count, script, options.seconds))
                    steps.done()
                visits.append(entered.visit(number))
    return Outcome(contestants, options, spans, visits)


def tables(outcome: Outcome) -> list[Table]:
    levels = outcome.options.connections
    heads = [f"{count} conn." if count > 1 else "1 connection" for count in levels]
    return [
        Table(
            title="Requests a second (in brackets: how many times that our server answers)",
            columns=["server", *heads],
            rows=[
                [each.name, *(_rate(outcome, each, count) for count in levels)]
                for each in outcome.contestants
            ],
        ),
        Table(
            title="Latency in ms, p50 / p99",
            columns=["server", *heads],
            rows=[
                [each.name, *(_latency(outcome, each.name, count) for count in levels)]
                for each in outcome.contestants
            ],
        ),
        _costs(outcome),
    ]


def _rate(outcome: Outcome, each: Contestant, connections: int) -> str:
    rate = outcome.middle(each.name, connections, lambda span: span.load.per_second)
    times = "" if each.own else f" ({outcome.ratio(each.name, connections):.2f}×)"
    return f"{rate:,.0f}{times}"


def _latency(outcome: Outcome, name: str, connections: int) -> str:
    p50 = outcome.middle(name, connections, lambda span: span.load.p50)
    p99 = outcome.middle(name, connections, lambda span: span.load.p99)
    return f"{_milliseconds(p50)} / {_milliseconds(p99)}"


def _milliseconds(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _costs(outcome: Outcome) -> Table:
    busiest = central(outcome.options.connections)
    rows = []
    for each in outcome.contestants:
        visits = [visit for visit in outcome.visits if visit.name == each.name]
        rates = [span.load.per_second for span in outcome.of(each.name, busiest)]
        rows.append(
            [
                each.name,
                f"{outcome.middle(each.name, busiest, lambda span: span.cpu_per_thousand):.3f}",
                f"{min(rates):,.0f} to {max(rates):,.0f}",
                f"{median(visit.memory for visit in visits):,.0f}",
                f"{median(visit.ready for visit in visits):.1f}",
            ]
        )
    return Table(
        title=f"What it takes ({busiest} connections)",
        columns=[
            "server",
            "CPU s per 1,000 rows",
            "requests/s, lowest to highest",
            "memory MiB (PSS)",
            "first answer after s",
        ],
        rows=rows,
    )


def central(levels: Sequence[int]) -> int:
    """The number of connections that figures of one level are given for."""
    return 64 if 64 in levels else levels[-1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_for_answer(process: psutil.Process, url: str, body: bytes, log: Path) -> Any:
    deadline = time.monotonic() + START_LIMIT
    while True:
        try:
            return _ask(url, body)
        except OSError as error:  # not listening yet, or not ready
            alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
            if not alive or time.monotonic() > deadline:
                raise SystemExit(
                    f"{url} does not answer ({error}):\n{log.read_text()[-2000:]}"
                ) from None
        time.sleep(0.02)


def _check(url: str, said: Sequence[Any], expected: float | Sequence[float]) -> None:
    """A server that says something else is not in the contest."""
    flat = said[0] if isinstance(said[0], list) else said
    wanted = [expected] if isinstance(expected, float | int) else expected
    if not all(math.isclose(a, b, abs_tol=1e-4) for a, b in zip(flat, wanted, strict=True)):
        raise SystemExit(f"{url} answers {flat}, the model {expected}")


def _ask(url: str, body: bytes) -> Any:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read())


def module(python: Path | str, name: str) -> Callable[[Path, int], list[str]]:
    """A module of bench.peers, started with the project's folder and its port."""
    return lambda folder, port: [str(python), "-m", f"bench.peers.{name}", str(folder), str(port)]
