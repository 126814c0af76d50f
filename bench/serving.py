"""The server against its peers, and against its own transport answering a constant."""

from __future__ import annotations

from pathlib import Path

from bench import contest
from bench.contest import BARE, V2, Contestant, module
from bench.environments import (
    BENTOML,
    LITSERVE,
    MLSERVER,
    bentoml_python,
    mlserver_python,
    peers_python,
)
from bench.load import require_wrk
from bench.options import Options, Steps
from bench.processes import call, python
from bench.results import Findings

PACKAGES = ("torch", "uvicorn", "uvloop", "httptools", "fastapi", "msgspec")
OURS = "homeostat"
TRANSPORT, BY_ASGI = "transport alone", "transport alone, by ASGI"


def others() -> list[str]:
    return [LITSERVE, MLSERVER, BENTOML, require_wrk()]


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    require_wrk()
    contestants = _contestants(steps)
    steps.tell("making the model and its project")
    call("-m", "bench.model_project", str(folder))
    outcome = contest.hold(contestants, folder, options, steps)
    level = contest.central(options.connections)
    share = outcome.ratio(TRANSPORT, level)
    return Findings(
        title="The server",
        setup=(
            "One JSON row of 32 floats a request, MLP 32-128-64-3, one server process, wrk with "
            f"one thread on the same cores, {options.seconds:g} s a figure, {options.rounds} "
            "round(s). Ours logs every row (spool before the answer, Delta commits every 3 s) and "
            "keeps its metrics; the others log nothing and have no access log."
        ),
        tables=contest.tables(outcome),
        notes=_notes(outcome, share, level),
        figures={**outcome.figures(), "transport_share": share},
    )


def _contestants(steps: Steps) -> list[Contestant]:
    peers = peers_python(steps.tell)
    mlserver = module(mlserver_python(steps.tell), "mlserver_app")
    constant, lit = module(python()[0], "constant"), module(peers, "litserve_app")
    return [
        Contestant(
            name=OURS,
            command=lambda folder, _: python("-m", "serving", "--project", str(folder)),
            own=True,
        ),
        Contestant(
            name=TRANSPORT,
            command=lambda folder, port: [*constant(folder, port), "short"],
            constant=True,
        ),
        Contestant(
            name=BY_ASGI,
            command=lambda folder, port: [*constant(folder, port), "asgi"],
            constant=True,
        ),
        Contestant(
            name="FastAPI, raw body, micro-batches", command=module(peers, "fastapi_batches")
        ),
        Contestant(name="FastAPI, pydantic body", command=module(peers, "fastapi_pydantic")),
        Contestant(
            name="MLServer, V2 JSON, max_batch_size 64",
            command=lambda folder, port: [*mlserver(folder, port), str(contest.free_port())],
            speech=V2,
        ),
        Contestant(
            name="LitServe, max_batch_size 64", command=lambda f, port: [*lit(f, port), "64"]
        ),
        Contestant(name="LitServe, max_batch_size 1", command=lambda f, port: [*lit(f, port), "1"]),
        Contestant(
            name="BentoML, batchable",
            command=module(bentoml_python(steps.tell), "bentoml_app"),
            speech=BARE,
        ),
    ]


def _notes(outcome: contest.Outcome, share: float, level: int) -> list[str]:
    notes = [f"At {level} connections the server reaches {share:.0%} of its transport."]
    notes += [f"{name}: {count} errors" for name, count in outcome.errors.items()]
    return notes if outcome.errors else [*notes, "No request failed, of anybody's."]
