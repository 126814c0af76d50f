"""Who takes part in contests of servers: ours, its transport alone, and the peers."""

from __future__ import annotations

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
from bench.options import Steps
from bench.processes import python

OURS = "homeostat"
TRANSPORT, BY_ASGI = "transport alone", "transport alone, by ASGI"
MICRO_BATCHES, PYDANTIC = "FastAPI, raw body, micro-batches", "FastAPI, pydantic body"
MLSERVER_NAME = "MLServer, V2 JSON, max_batch_size 64"
LITSERVE_64, LITSERVE_1 = "LitServe, max_batch_size 64", "LitServe, max_batch_size 1"
BENTOML_NAME = "BentoML, batchable"
PINS = [LITSERVE, MLSERVER, BENTOML]


def versions() -> list[str]:
    return [*PINS, require_wrk()]


def ours() -> Contestant:
    return Contestant(
        name=OURS,
        command=lambda folder, _: python("-m", "serving", "--project", str(folder)),
        own=True,
    )


def transports() -> list[Contestant]:
    """The server's own connections, and uvicorn's with an ASGI application, without a model."""
    constant = module(python()[0], "constant")
    return [
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
    ]


def peers(steps: Steps) -> list[Contestant]:
    fastapi = peers_python(steps.tell)
    mlserver = module(mlserver_python(steps.tell), "mlserver_app")
    lit = module(fastapi, "litserve_app")
    return [
        Contestant(name=MICRO_BATCHES, command=module(fastapi, "fastapi_batches")),
        Contestant(name=PYDANTIC, command=module(fastapi, "fastapi_pydantic")),
        Contestant(
            name=MLSERVER_NAME,
            command=lambda folder, port: [*mlserver(folder, port), str(contest.free_port())],
            speech=V2,
        ),
        Contestant(name=LITSERVE_64, command=lambda f, port: [*lit(f, port), "64"]),
        Contestant(name=LITSERVE_1, command=lambda f, port: [*lit(f, port), "1"]),
        Contestant(
            name=BENTOML_NAME,
            command=module(bentoml_python(steps.tell), "bentoml_app"),
            speech=BARE,
        ),
    ]
