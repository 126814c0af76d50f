"""A server under steady load while its disk or its object store fails, and after.

Ends with an error where an answer, a count or the memory is not what the settings promise.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from statistics import median

from bench import faults
from bench.contest import Contestant, started
from bench.fault_case import LOOK, MODEL, MOST_GROWTH, Case, Looks, Watched, case_of, counter
from bench.faults import Fault, Served
from bench.options import Options, Steps
from bench.processes import call, python
from bench.results import Findings, Table
from bench.steady import Connection, Steady

PACKAGES = ("deltalake", "pyarrow", "uvicorn", "moto")
POLICIES = ("drop", "block")
# Small, so that they are reached; and short, so that much happens.
LIMITS = {
    "HOMEOSTAT_JOURNAL_SPOOL": "1MB",
    "HOMEOSTAT_JOURNAL_MEMORY": "1MB",
    "HOMEOSTAT_JOURNAL_COMMIT_BYTES": "250KB",
    "HOMEOSTAT_JOURNAL_COMMIT_EVERY": "500ms",
    "HOMEOSTAT_JOURNAL_BLOCK_FOR": "500ms",
}
ROWS, RATE, CALLERS = 8, 100.0, 80  # rows a request, requests a second
PHASE, QUICK_PHASE = 60.0, 2.0  # seconds of a fault
WARM_UP, QUICK_WARM_UP = 10.0, 1.5
AFTER = 1.0
PATIENCE = 120.0


def others() -> list[str]:
    return []


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    phase = QUICK_PHASE if options.quick else PHASE
    warm_up = QUICK_WARM_UP if options.quick else WARM_UP
    steps.tell("making the model and its project")
    call("-m", "bench.model_project", str(folder / "project"), "--embedding")
    kinds = (faults.disk_full, faults.read_only, faults.store_away)
    steps.expect(len(kinds))
    cases: list[Case] = []
    for make in kinds:
        cases += _under(make(folder), folder / "project", (warm_up, phase), steps)
        steps.done()
    wrong = [f"{case.fault}, {case.policy}: {each}" for case in cases for each in case.wrong]
    if wrong:
        raise SystemExit("\n".join(["What was promised does not hold:", *wrong]))
    return _findings(cases, phase)


def _under(
    making: AbstractContextManager[Fault],
    project: Path,
    seconds: tuple[float, float],
    steps: Steps,
) -> list[Case]:
    with making as fault, ExitStack() as stack:
        steps.tell(f"{fault.name}: starting two servers")
        with ThreadPoolExecutor() as pool:
            starting = [_server(fault, policy, project) for policy in POLICIES]
            servers = list(pool.map(stack.enter_context, starting))
        return asyncio.run(_watch(fault, servers, seconds, steps))


@contextmanager
def _server(fault: Fault, policy: str, project: Path) -> Iterator[Watched]:
    place = fault.folder / policy
    shutil.copytree(project, place)
    journal = f"{fault.journal}/{policy}" if fault.journal else ""
    environ = {**fault.environ, **LIMITS, "HOMEOSTAT_JOURNAL_WHEN_FULL": policy}
    if journal:
        environ["HOMEOSTAT_JOURNAL_PATH"] = journal
    each = Contestant(
        name=policy,
        command=lambda folder, _: python("-m", "serving", "--project", str(folder)),
        environ=environ,
    )
    with started(each, place) as server:
        table = f"{journal or place / '.homeostat' / 'journal'}/{MODEL}/predictions"
        yield Watched(policy, place, server, table, fault.environ)


async def _watch(
    fault: Fault, watched: Sequence[Watched], seconds: tuple[float, float], steps: Steps
) -> list[Case]:
    warm_up, phase = seconds
    row = json.loads((watched[0].place / "example.json").read_text())["request"]["rows"][0]
    loads = [Steady(w.server.url, [row] * ROWS, rate=RATE, callers=CALLERS) for w in watched]
    looks = [Looks(w.server) for w in watched]
    already = [await counter(w.server.url, "received") for w in watched]  # the contest's own
    served = [Served(w.place, w.server.process.pid) for w in watched]
    work = [*(load.run() for load in loads), *(look.run() for look in looks)]
    running = [asyncio.create_task(each) for each in work]
    steps.tell(f"{fault.name}: a calm moment")
    await asyncio.sleep(warm_up)
    for look in looks:
        look.begin()
    try:
        for name, begin in fault.phases:
            steps.tell(f"{fault.name}: {name}")
            await asyncio.to_thread(begin, served)
            await asyncio.sleep(phase)
    finally:
        await asyncio.to_thread(fault.end, served)
    for look in looks:
        look.stop()
    steps.tell(f"{fault.name}: it is over")
    await _recovered(watched, loads)
    for load in loads:
        load.stop()
    await asyncio.gather(*running)
    return [
        await case_of(fault.name, w, load.told, look, before)
        for w, load, look, before in zip(watched, loads, looks, already, strict=True)
    ]


async def _recovered(watched: Sequence[Watched], loads: Sequence[Steady]) -> None:
    """Predictions are answered and stored again."""
    deadline = time.monotonic() + PATIENCE
    for w, load in zip(watched, loads, strict=True):
        connection = Connection(w.server.url)
        answered = len(load.told.logged)
        while True:
            flushed = await connection.ask("POST", f"/models/{MODEL}/flush", b"{}")
            if flushed.status == 200 and len(load.told.logged) > answered:
                break
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"{w.policy}: no recovery within {PATIENCE:g} s: {flushed.body.decode()}"
                )
            await asyncio.sleep(LOOK)
        connection.close()
    await asyncio.sleep(AFTER)


def _findings(cases: Sequence[Case], phase: float) -> Findings:
    return Findings(
        title="When the log's disk or store fails",
        setup=(
            f"A server process, {RATE:g} requests of {ROWS} rows a second (32 floats and a 64-d "
            "embedding logged), a spool of at most 1 MB, answers that wait at most 0.5 s. Each "
            f"fault lasts {phase:g} s (the object store: {phase:g} s of status 500, then "
            f"{phase:g} s without an answer), then it ends, and the table is compared with what "
            "callers were told, id by id. This script fails where anything differs."
        ),
        tables=[
            Table(
                title="Rows",
                columns=["fault", "asked", "200", "503", "in the table", "dropped", "slowest s"],
                rows=[
                    [
                        f"{case.fault}, {case.policy}",
                        f"{case.sent:,}",
                        f"{case.logged:,}",
                        f"{case.refused:,}",
                        f"{case.stored:,}",
                        f"{case.counters['dropped']:,}",
                        f"{case.slowest:.2f}",
                    ]
                    for case in cases
                ],
            ),
            Table(
                title="Memory of the server during the fault, MiB (RSS)",
                columns=["fault", "at its start", "median", "most", "a minute", "health slowest s"],
                rows=[
                    [
                        f"{case.fault}, {case.policy}",
                        f"{case.start:.0f}",
                        f"{median(size for _, size in case.memory):.0f}",
                        f"{case.most:.0f}",
                        f"{case.slope:+.2f}",
                        f"{case.slowest_look:.2f}",
                    ]
                    for case in cases
                ],
            ),
        ],
        notes=[
            "drop: every request was answered with 200, and received = stored + dropped, to the "
            "row.",
            "block: every answered row is in the table exactly once, and no refused one is.",
            f"Memory may grow by {MOST_GROWTH:g} MiB at most; health and metrics answered all the "
            "time.",
        ],
        figures={"cases": cases},
    )
