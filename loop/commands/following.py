"""A run followed to its end in the terminal, and its gate shown."""

from __future__ import annotations

import time

from rich.markup import escape

from homeostat.errors import NotReady
from homeostat.records import GateReport, Run
from homeostat.state import controls, runs
from loop.commands.common import terminal
from loop.context import Context
from loop.holder import is_dead
from loop.machine import Machine


def refuse_while_paused(context: Context) -> None:
    with context.state.begin() as tx:
        if controls.control(tx, context.model).paused:
            raise NotReady("the loop is paused and would not act: `homeostat resume` first")


def follow(context: Context, run_id: str) -> tuple[Run, GateReport | None]:
    """Show a run's stages until it ends or waits for a person.

    Where no loop runs, this process is the loop for as long as it takes.
    """
    machine = Machine(context)
    shown = None
    try:
        with terminal.status("starting") as spinner:
            while True:
                with context.state.begin() as tx:
                    run = runs.get(tx, run_id)
                    report = runs.gate_of(tx, run_id)
                    lease = controls.lease(tx, machine.lease_name)
                    paused = controls.control(tx, context.model).paused
                assert run is not None
                if run.stage != shown:
                    shown = run.stage
                    terminal.print(f"[dim]{context.clock():%H:%M:%S}[/] {run.stage}")
                if run.stage.final or run.stage.value == "proposed":
                    return run, report
                doing = "paused: `homeostat resume` lets it go on" if paused else run.stage.value
                spinner.update(escape(run.waiting_for or doing))
                if lease is None or lease.holder == machine.holder or _is_free(lease, context):
                    machine.tick()
                time.sleep(0.3)
    finally:
        machine.close()


def _is_free(lease: controls.Lease, context: Context) -> bool:
    return lease.expires_at <= context.clock() or is_dead(lease.holder)


def show_gate(report: GateReport) -> None:
    colour = {"pass": "green", "fail": "red"}.get(report.outcome.value, "yellow")
    terminal.print(f"gate: [{colour}]{report.outcome}[/] {escape(report.reason)}")
    for check in report.checks:
        mark = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[dim]·[/]"}[check.passed]
        terminal.print(f"  {mark} {escape(check.name)}: {escape(check.detail)}")
