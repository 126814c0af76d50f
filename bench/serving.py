"""The server against its peers, and against its own transport answering a constant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench import contest, rivals
from bench.contest import Outcome
from bench.load import require_wrk
from bench.options import Options, Steps
from bench.processes import call
from bench.results import Aim, Findings, missed

PACKAGES = ("torch", "uvicorn", "uvloop", "httptools", "fastapi", "msgspec")
# How many times as many requests as the best of these we ask of ourselves, at 64 connections.
TIMES = {
    "LitServe": ((rivals.LITSERVE_64, rivals.LITSERVE_1), 20.0),
    "MLServer": ((rivals.MLSERVER_NAME,), 12.0),
    "BentoML": ((rivals.BENTOML_NAME,), 30.0),
    "FastAPI with a pydantic body": ((rivals.PYDANTIC,), 6.0),
    "its transport": ((rivals.TRANSPORT,), 0.5),
}
ALONE = 1.5  # times the transport's p50 at one connection


def others() -> list[str]:
    return rivals.versions()


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    require_wrk()
    contestants = [rivals.ours(), *rivals.transports(), *rivals.peers(steps)]
    steps.tell("making the model and its project")
    call("-m", "bench.model_project", str(folder))
    outcome = contest.hold(contestants, folder, options, steps)
    aims = _aims(outcome, options.connections)
    return Findings(
        title="The server",
        setup=(
            "One JSON row of 32 floats a request, MLP 32-128-64-3, one server process, wrk with "
            f"one thread on the same cores, {options.seconds:g} s a figure, {options.rounds} "
            "round(s). Ours logs every row (spool before the answer, Delta commits every 3 s) and "
            "keeps its metrics; the others log nothing and have no access log. The transport "
            "alone reads the same body and answers a constant as long as the server's answer: by "
            "the server's own connections, and by uvicorn with an ASGI application."
        ),
        tables=contest.tables(outcome),
        notes=[*map(str, aims), *_errors(outcome)],
        figures=outcome.figures(),
        missed=missed(aims, quick=options.quick),
    )


def _aims(outcome: Outcome, connections: Sequence[int]) -> list[Aim]:
    level = contest.central(connections)
    aims = []
    for name, (peers, times) in TIMES.items():
        found = min(outcome.ratio(peer, level) for peer in peers)
        aims.append(
            Aim(
                said=f"At {level} connections {found:.2f} times the requests of {name}; "
                f"{times:g} are asked",
                met=found >= times,
            )
        )
    if 1 in connections:
        found = _p50_ratio(outcome)
        aims.append(
            Aim(
                said=f"At one connection a p50 of {found:.2f} times the transport's; at most "
                f"{ALONE:g} is asked",
                met=found <= ALONE,
            )
        )
    return aims


def _p50_ratio(outcome: Outcome) -> float:
    pairs = zip(outcome.of(rivals.OURS, 1), outcome.of(rivals.TRANSPORT, 1), strict=True)
    return median(ours.load.p50 / theirs.load.p50 for ours, theirs in pairs)


def _errors(outcome: Outcome) -> list[str]:
    found = [f"{name}: {count} errors" for name, count in outcome.errors.items()]
    return found or ["No request failed, of anybody's."]
