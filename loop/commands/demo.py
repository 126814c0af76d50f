"""homeostat demo"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import homeostat
from homeostat.errors import NotReady
from homeostat.records import VerdictKind
from loop.commands.common import terminal
from loop.demo import telling
from loop.demo.acts import ACTS, Act, play_act
from loop.demo.stage import START_LIMIT, Stage, demo_environ, set_stage, wait_until_serving
from loop.demo.traffic import Traffic
from loop.household import addresses
from loop.status import Status


@click.command()
@click.option("--exit", "leave", is_flag=True, help="End when the last act is over.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures.")
@click.option("--seed", default=0, show_default=True, help="Of the data and the training.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the project here.")
def command(leave: bool, json_file: Path | None, seed: int, folder: Path | None) -> None:
    """Watch the loop close on real data: handwritten digits, a real model, four acts.

    Exits 1 when an act did not end as told.
    """
    where = folder or Path(tempfile.mkdtemp(prefix="homeostat-demo-"))
    where.mkdir(parents=True, exist_ok=True)
    if any(where.iterdir()):
        raise click.UsageError(f"{where} is not empty; name a new folder")
    began = time.monotonic()
    stage = set_stage(where.resolve(), seed, demo_environ())
    try:
        with telling.Teller(terminal) as teller:
            started = _start(stage, teller)
            acts = _play(stage, teller)
        terminal.print(telling.closing_table(acts))
        figures = _figures(stage, acts, seed, started, time.monotonic() - began)
        if not leave:
            _stay(stage)
    finally:
        code = stage.close()
    if folder is None and figures["as_told"]:
        shutil.rmtree(where, ignore_errors=True)
    elif folder is None:
        terminal.print(f"Kept for a look: {where} (logs in .homeostat/logs)")
    figures["exit_status_of_up"] = code
    figures["as_told"] = figures["as_told"] and code == 0
    if json_file:
        json_file.write_text(json.dumps(figures, indent=2) + "\n")
    raise SystemExit(0 if figures["as_told"] else 1)


def _start(stage: Stage, teller: telling.Teller) -> float:
    teller.chapter("Prologue: no model yet. One is trained, registered, gated and promoted.")
    wait_until_serving(stage)
    stage.traffic = Traffic(stage.server, stage.digits, stage.seed)
    teller.stage = stage
    started = time.monotonic() - teller.began
    teller.say("Version 1 serves, and requests come in. Labels follow two seconds later.")
    telling.show_addresses(terminal, addresses(stage.settings))
    deadline = time.monotonic() + START_LIMIT
    while not any(_settled(stage.status())):
        if time.monotonic() > deadline:
            raise NotReady(f"no window of production became the reference in {START_LIMIT:g} s")
        time.sleep(0.25)
    teller.say("The first window of production became the reference.")
    return started


def _settled(status: Status) -> list[bool]:
    return [
        c.verdict.rebased
        for c in status.checks
        if c.verdict and c.verdict.kind is VerdictKind.OK and c.verdict.rebased
    ]


def _play(stage: Stage, teller: telling.Teller) -> list[Act]:
    acts = []
    for number, (title, story, _) in enumerate(ACTS):
        teller.chapter(f"Act {number + 1}: {title} ({story})")
        act = play_act(stage, number, teller.say)
        style = "green" if act.as_told else "red"
        teller.say(f"{'As told' if act.as_told else 'Not as told'}, {act.seconds:.0f} s.", style)
        acts.append(act)
    return acts


def _figures(
    stage: Stage, acts: list[Act], seed: int, started: float, total: float
) -> dict[str, Any]:
    assert stage.traffic is not None
    tally = stage.traffic.tally
    return {
        "homeostat": homeostat.__version__,
        "seed": seed,
        "as_told": all(act.as_told for act in acts) and not tally.failures,
        "seconds_to_first_answer": round(started, 1),
        "seconds_to_closed_loop": round(started + acts[0].seconds, 1),
        "seconds": round(total, 1),
        "requests": tally.requests,
        "rows": tally.rows,
        "labels": tally.labels,
        "failed": len(tally.failures),
        "failures": tally.failures[:10],
        "versions_seen": sorted(tally.versions),
        "acts": [asdict(act) for act in acts],
    }


def _stay(stage: Stage) -> None:
    terminal.print(
        f"Everything goes on: {stage.console} shows it, {stage.server}/docs takes requests. "
        "Ctrl-C ends it."
    )
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        terminal.print("Ending.")
