"""What logging every row costs the server: CPU a row, and the latency of the slowest answers."""

from __future__ import annotations

import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench import load
from bench.contest import Contestant, Started, started
from bench.load import Load, require_wrk
from bench.options import Options, Steps
from bench.processes import call, cpu_seconds, python
from bench.results import Aim, Findings, Table, missed

PACKAGES = ("torch", "uvicorn", "uvloop", "msgspec", "pyarrow", "deltalake")
ON, OFF = "logging on", "logging off"
ALTERNATIONS = 10
CONNECTIONS = 64
# The project's own commits come ten times as often. Each span ends with one, whatever this says.
AS_SHIPPED = {"HOMEOSTAT_JOURNAL_COMMIT_EVERY": "30s"}
MOST_CPU, MOST_P99 = 1.15, 2.0  # what we ask of ourselves: a ratio, and milliseconds


@dataclass(frozen=True, kw_only=True)
class Span:
    """One server under one load in one alternation."""

    name: str
    round: int
    load: Load
    cpu: float  # seconds of the server, up to the last row's commit

    @property
    def cpu_per_row(self) -> float:
        """Microseconds."""
        return 1e6 * self.cpu / max(1, self.load.requests)


def others() -> list[str]:
    return [require_wrk()]


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    require_wrk()
    rounds = options.rounds if options.quick else max(ALTERNATIONS, options.rounds)
    options = replace(options, rounds=rounds)
    steps.tell("making the model and two projects")
    contestants = [_logged(), _unlogged()]
    with ExitStack() as stack:
        servers = []
        for each in contestants:
            project = folder / each.name.replace(" ", "-")
            call("-m", "bench.model_project", str(project), "--embedding")
            servers.append(stack.enter_context(started(each, project)))
        steps.expect(2 * len(servers) * rounds)
        full = _alternate(servers, folder, options, steps, pause=0.0)
        capacity = median(span.load.per_second for span in full if span.name == ON)
        # the pause is from an answer to the next request, so about an answer's time is taken off
        pause = 1000 * CONNECTIONS / (capacity / 2) - 1.0
        half = _alternate(servers, folder, options, steps, pause=pause)
    return _findings(full, half, capacity, options)


def _logged() -> Contestant:
    return Contestant(
        name=ON,
        command=lambda folder, _: python("-m", "serving", "--project", str(folder)),
        environ=AS_SHIPPED,
    )


def _unlogged() -> Contestant:
    return Contestant(
        name=OFF,
        command=lambda folder, _: python("-m", "bench.peers.unlogged", "--project", str(folder)),
        environ=AS_SHIPPED,
    )


def _alternate(
    servers: Sequence[Started], folder: Path, options: Options, steps: Steps, *, pause: float
) -> list[Span]:
    """Both run all the time, one of them idle; who comes first changes from round to round."""
    script = load.write_script(servers[0].body, folder, pause=pause)
    what = "half of capacity" if pause else "as fast as it goes"
    for server in servers:
        load.apply(server.url, script, connections=CONNECTIONS, seconds=options.warm_up)
    spans = []
    for number in range(1, options.rounds + 1):
        for server in servers if number % 2 else servers[::-1]:
            steps.tell(f"{what}, {number}/{options.rounds}, {server.name}")
            spans.append(_span(server, number, script, options.seconds))
            steps.done()
    return spans


def _span(server: Started, number: int, script: Path, seconds: float) -> Span:
    _flush(server)
    before = cpu_seconds(server.process)
    got = load.apply(server.url, script, connections=CONNECTIONS, seconds=seconds)
    _flush(server)  # the commit of the last rows belongs to them
    used = cpu_seconds(server.process) - before
    if got.errors:
        raise SystemExit(f"{server.name}: {got.errors} of {got.requests} requests failed")
    return Span(name=server.name, round=number, load=got, cpu=used)


def _flush(server: Started) -> None:
    request = urllib.request.Request(f"{server.url}/models/bench/flush", b"{}")
    with urllib.request.urlopen(request, timeout=60):
        pass


def _findings(
    full: Sequence[Span], half: Sequence[Span], capacity: float, options: Options
) -> Findings:
    ratios = {name: _ratios(spans) for name, spans in (("full", full), ("half", half))}
    more = [
        on.load.p99 - off.load.p99 for on, off in zip(_of(half, ON), _of(half, OFF), strict=True)
    ]
    aims = [
        _aim("as fast as it goes", median(ratios["full"])),
        _aim("at half of capacity", median(ratios["half"])),
        Aim(
            said=f"p99 at half of capacity: {median(more):+.2f} ms (lowest {min(more):+.2f}, "
            f"highest {max(more):+.2f}); at most {MOST_P99:g} ms more is asked",
            met=median(more) <= MOST_P99,
        ),
    ]
    return Findings(
        title="What logging costs",
        setup=(
            "One JSON row of 32 floats a request, MLP 32-128-64-3 whose 64-d layer is logged with "
            "the row, durability spool and Delta commits as shipped (every 30 s), and one more at "
            "the end of each span; against the same server with a journal that takes nothing. "
            f"{options.rounds} alternations of {options.seconds:g} s, "
            f"both processes alive, wrk with {CONNECTIONS} connections on the same cores. CPU is "
            "the server's, user and system, up to the commit of the last row. Half of capacity: "
            f"each connection pauses, so that {capacity / 2:,.0f} requests a second are asked."
        ),
        tables=[
            _table("As fast as it goes", full, ratios["full"]),
            _table("At half of capacity", half, ratios["half"]),
        ],
        notes=[str(aim) for aim in aims],
        figures={"full": full, "half": half, "ratios": ratios, "p99_more": more},
        missed=missed(aims, quick=options.quick),
    )


def _aim(load: str, ratio: float) -> Aim:
    return Aim(
        said=f"CPU a row {load}: {ratio:.3f} times that without logging; at most {MOST_CPU} is "
        "asked",
        met=ratio <= MOST_CPU,
    )


def _of(spans: Sequence[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


def _ratios(spans: Sequence[Span]) -> list[float]:
    pairs = zip(_of(spans, ON), _of(spans, OFF), strict=True)
    return [on.cpu_per_row / off.cpu_per_row for on, off in pairs]


def _table(title: str, spans: Sequence[Span], ratios: Sequence[float]) -> Table:
    rows = []
    for name in (ON, OFF):
        mine = _of(spans, name)
        times = f" ({median(ratios):.3f}×, {min(ratios):.3f} to {max(ratios):.3f})"
        rows.append(
            [
                name,
                f"{median(span.cpu_per_row for span in mine):.1f}{times if name == ON else ''}",
                f"{median(span.load.per_second for span in mine):,.0f}",
                f"{median(span.load.p50 for span in mine):.2f}",
                f"{median(span.load.p99 for span in mine):.2f}",
                f"{median(span.load.cpu / span.load.requests * 1e6 for span in mine):.1f}",
            ]
        )
    columns = ["", "CPU µs a row", "rows/s", "p50 ms", "p99 ms", "wrk's CPU µs a row"]
    return Table(title=title, columns=columns, rows=rows)
