"""Latency at steady rates: half of our own capacity, and half of each peer's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench import load, rivals
from bench.contest import Contestant, Started, started
from bench.load import Load, require_wrk
from bench.options import Options, Steps
from bench.processes import call
from bench.results import Aim, Findings, Table, missed

PACKAGES = ("torch", "uvicorn", "uvloop", "httptools", "fastapi", "msgspec")
CONNECTIONS = 256  # each pauses long, so that the rate hardly depends on the answers
BUSY = 64  # connections that never pause: capacity
MOST_P99 = 10.0  # ms, at half of our own capacity


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """One peer, and ours at the same rate."""

    name: str
    rate: float  # requests a second that were asked
    theirs: Sequence[Load]
    ours: Sequence[Load]


def others() -> list[str]:
    return rivals.versions()


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    require_wrk()
    peers = rivals.peers(steps)
    steps.tell("making the model and its project")
    call("-m", "bench.model_project", str(folder))
    steps.expect((1 + 2 * len(peers)) * options.rounds)
    with started(rivals.ours(), folder) as own:
        capacity = _capacity(own, folder, options)
        steps.tell(f"ours at half of its capacity, {capacity / 2:,.0f} a second")
        half = _spans(own, folder, capacity / 2, options, steps.done)
        meetings = [_meet(own, each, folder, options, steps) for each in peers]
    return _findings(half, capacity, meetings, options)


def _meet(own: Started, each: Contestant, folder: Path, options: Options, steps: Steps) -> Meeting:
    with started(each, folder) as peer:
        rate = _capacity(peer, folder, options) / 2
        steps.tell(f"{each.name} and ours at {rate:,.0f} a second")
        theirs, ours = [], []
        for _ in range(options.rounds):
            one = replace(options, rounds=1)
            theirs += _spans(peer, folder, rate, one, steps.done)
            ours += _spans(own, folder, rate, one, steps.done)
    return Meeting(name=each.name, rate=rate, theirs=theirs, ours=ours)


def _capacity(server: Started, folder: Path, options: Options) -> float:
    script = load.write_script(server.body, folder, path=server.path)
    load.apply(server.url, script, connections=BUSY, seconds=options.warm_up)
    return load.apply(server.url, script, connections=BUSY, seconds=options.seconds).per_second


def _spans(
    server: Started, folder: Path, rate: float, options: Options, done: Callable[[], None]
) -> list[Load]:
    pause = 1000 * CONNECTIONS / rate
    script = load.write_script(server.body, folder, pause=pause, path=server.path)
    spans = []
    for _ in range(options.rounds):
        spans.append(
            load.apply(server.url, script, connections=CONNECTIONS, seconds=options.seconds)
        )
        done()
    return spans


def _findings(
    half: Sequence[Load], capacity: float, meetings: Sequence[Meeting], options: Options
) -> Findings:
    p99 = median(span.p99 for span in half)
    aims = [
        Aim(
            said=f"p99 at half of our capacity: {p99:.2f} ms; under {MOST_P99:g} is asked",
            met=p99 < MOST_P99,
        )
    ]
    rows = [["homeostat, half of its own", _rate(half), _shown(half, "p50"), _shown(half, "p99")]]
    for each in meetings:
        theirs, ours = (median(s.p50 for s in each.theirs), median(s.p99 for s in each.ours))
        aims.append(
            Aim(
                said=f"Our p99 at half of the capacity of {each.name}: {ours:.2f} ms, its p50 "
                f"{theirs:.2f}; less is asked",
                met=ours < theirs,
            )
        )
        for name, spans in ((each.name, each.theirs), ("homeostat, as many", each.ours)):
            rows.append([name, _rate(spans), _shown(spans, "p50"), _shown(spans, "p99")])
    return Findings(
        title="Steady rates",
        setup=(
            f"As for the server, but {CONNECTIONS} connections that pause between two requests, "
            f"so that a rate is asked: half of what the server answers at {BUSY} connections that "
            f"never pause (ours: {capacity:,.0f} a second). {options.seconds:g} s a figure, "
            f"{options.rounds} round(s), in turns. Ours stays alive beside each peer."
        ),
        tables=[
            Table(title="Latency", columns=["server", "requests/s", "p50 ms", "p99 ms"], rows=rows)
        ],
        notes=[str(aim) for aim in aims],
        figures={"half": half, "meetings": meetings, "capacity": capacity},
        missed=missed(aims, quick=options.quick),
    )


def _rate(spans: Sequence[Load]) -> str:
    return f"{median(span.per_second for span in spans):,.0f}"


def _shown(spans: Sequence[Load], what: str) -> str:
    return f"{median(getattr(span, what) for span in spans):.2f}"
