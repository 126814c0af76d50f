"""Under which HTTP server our handler answers most; see docs/adr/0006-http-stack.md."""

from __future__ import annotations

from pathlib import Path

from bench import contest
from bench.contest import Contestant, module
from bench.environments import GRANIAN_PIN, granian_path
from bench.load import require_wrk
from bench.options import Options, Steps
from bench.processes import ROOT, call, python
from bench.results import Findings

PACKAGES = ("uvicorn", "uvloop", "httptools", "torch")


def others() -> list[str]:
    return [GRANIAN_PIN, require_wrk()]


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    require_wrk()
    granian = granian_path(steps.tell)
    steps.tell("making the model and its project")
    call("-m", "bench.model_project", str(folder))
    outcome = contest.hold(_contestants(folder, granian), folder, options, steps)
    return Findings(
        title="The HTTP stack",
        setup=(
            "Our own handler, logging and metrics on, under each HTTP server, one process and one "
            "event loop (uvloop) each; requests and load as for the server, "
            f"{options.seconds:g} s a figure, {options.rounds} round(s). Granian's HTTP parsing "
            "runs on a thread beside Python's, and its RSGI door checks neither keys nor lengths."
        ),
        tables=contest.tables(outcome),
        notes=[f"{name}: {count} errors" for name, count in outcome.errors.items()],
        figures=outcome.figures(),
    )


def _contestants(folder: Path, granian: Path) -> list[Contestant]:
    def under_granian(name: str, interface: str, app: str, *, constant: bool = False) -> Contestant:
        def command(_: Path, port: int) -> list[str]:
            return [
                *python("-m", "granian", "--interface", interface, "--host", "127.0.0.1"),
                *("--port", str(port), "--workers", "1", "--loop", "uvloop", "--http", "1"),
                *("--no-ws", "--no-access-log", "--log-level", "warning"),
                f"bench.peers.granian_apps:{app}",
            ]

        return Contestant(
            name=name,
            command=command,
            environ={
                "PYTHONPATH": f"{ROOT}:{granian}",
                "HOMEOSTAT_BENCH_PROJECT": str(folder),
            },
            constant=constant,
        )

    constant = module(python()[0], "constant")
    return [
        Contestant(
            name="uvicorn",
            command=lambda project, _: python("-m", "serving", "--project", str(project)),
            own=True,
        ),
        under_granian("Granian, ASGI", "asginl", "ours_by_asgi"),
        under_granian("Granian, RSGI", "rsgi", "ours_by_rsgi"),
        Contestant(
            name="uvicorn, constant",
            command=lambda folder, port: [*constant(folder, port), "asgi"],
            constant=True,
        ),
        under_granian("Granian, ASGI, constant", "asginl", "constant_by_asgi", constant=True),
        under_granian("Granian, RSGI, constant", "rsgi", "constant_by_rsgi", constant=True),
    ]
