"""How things stand, gathered once for the terminal, the status page and whoever asks by program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from homeostat import events as types
from homeostat.records import Decision, Event, GateReport, Mode, Rollout, Run, Trial, TrialKind
from homeostat.settings import Settings
from homeostat.state import checks, controls, events, rollouts, runs
from homeostat.state.checks import Check
from homeostat.state.controls import Control
from homeostat.state.events import OutboxLevel
from homeostat.state.store import State
from loop.server_door import server_url


@dataclass(frozen=True, kw_only=True)
class Status:
    model: str
    mode: Mode
    now: datetime
    server: str | None
    loop_alive: bool
    control: Control
    rollout: Rollout | None
    rollouts: tuple[Rollout, ...]  # by which a version came to serve
    checks: tuple[Check, ...]  # newest first, like all that follow
    decisions: tuple[Decision, ...]
    runs: tuple[Run, ...]
    gates: dict[str, GateReport]  # by run
    events: tuple[Event, ...]
    outbox: OutboxLevel
    waiting: dict[str, str]  # what the loop said it waits for


def gather(settings: Settings, state: State, now: datetime, *, limit: int = 20) -> Status:
    model = settings.model.name
    with state.begin() as tx:
        lease = controls.lease(tx, f"loop:{model}")
        found = runs.newest(tx, model, limit)
        gates = {run.run_id: runs.gate_of(tx, run.run_id) for run in found}
        return Status(
            model=model,
            mode=settings.mode,
            now=now,
            server=server_url(settings),
            loop_alive=lease is not None and lease.expires_at > now,
            control=controls.control(tx, model),
            rollout=rollouts.current(tx, model),
            rollouts=tuple(rollouts.newest_champions(tx, model, limit)),
            checks=tuple(checks.newest(tx, model, limit)),
            decisions=tuple(runs.newest_decisions(tx, model, limit)),
            runs=tuple(found),
            gates={run_id: gate for run_id, gate in gates.items() if gate is not None},
            events=tuple(events.newest(tx, model, limit * 2)),
            outbox=events.outbox_level(tx),
            waiting=_waiting(events.newest(tx, model, 200)),
        )


def _waiting(newest_first: Sequence[Event]) -> dict[str, str]:
    """What was away when last spoken of."""
    last: dict[str, Event] = {}
    for event in newest_first:
        if event.type in (types.LOOP_WAITING, types.LOOP_RECOVERED):
            last.setdefault(str(event.data["what"]), event)
    return {
        what: str(event.data["reason"])
        for what, event in last.items()
        if event.type == types.LOOP_WAITING
    }


def trial_words(trial: Trial) -> str:
    """For people."""
    of = "copies of the requests" if trial.kind is TrialKind.SHADOW else "the requests"
    return f"version {trial.version.version} on trial ({trial.kind}, {trial.share:.1%} of {of})"


def next_step(status: Status) -> str:
    """What the loop is about to do, or waits for: one sentence for people."""
    if status.control.paused:
        return f"Paused by {status.control.actor}: {status.control.reason or 'no reason given'}."
    active = next((run for run in status.runs if not run.stage.final), None)
    if status.waiting:
        return f"Waiting for {', '.join(f'{k} ({v})' for k, v in status.waiting.items())}."
    if active is not None and active.waiting_for:
        return f"The run waits: {active.waiting_for}."
    if active is not None and active.stage.value == "proposed" and active.candidate:
        version = active.candidate.version
        return f"Version {version} passed its gate: `homeostat promote` or `homeostat reject`."
    if active is not None:
        return f"A retraining run is under way: {active.stage}."
    if status.rollout is None:
        return _first_version(status)
    if not status.loop_alive:
        return "No loop runs: start it with `homeostat up` or `homeostat loop`."
    return "Watching."


def _first_version(status: Status) -> str:
    if not status.runs:
        if not status.loop_alive:
            return "No version serves yet: `homeostat up` trains the first one."
        return "No version serves yet: the loop is about to train the first one."
    last = status.runs[0]
    gate = status.gates.get(last.run_id)
    why = last.error or (gate.reason if gate else last.stage.value)
    return (
        f"No version serves yet; the last candidate did not make it: {why}. What the program "
        "printed is in the event retrain.failed. `homeostat retrain` tries again at once."
    )
