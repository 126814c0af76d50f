"""The four acts: what changes in the world, and what has to follow from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from homeostat import events
from homeostat.records import GateReport, Run, VerdictKind
from homeostat.state.checks import Check
from loop.demo.stage import Stage
from loop.status import Status

ACT_LIMIT = 120.0
HARM = (VerdictKind.HARMFUL_SHIFT, VerdictKind.CONCEPT_DRIFT)


@dataclass
class Act:
    """One act's figures, filled in while it is played."""

    number: int
    title: str
    story: str
    seconds: float = 0.0
    as_told: bool = False
    missing: str = ""  # what did not happen
    accuracy_before: float | None = None
    accuracy_during: float | None = None
    accuracy_after: float | None = None
    checks: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    version_before: str = ""
    version_after: str = ""
    gate: str = ""
    quarantined: int = 0
    alerts: tuple[str, ...] = ()
    requests: int = 0
    failed: int = 0


class Missing(Exception):
    """Something the story tells did not happen in time."""


@dataclass
class Playing:
    """An act under way: watches what the platform does, through its own doors."""

    stage: Stage
    act: Act
    tell: Callable[[str], None]
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    deadline: float = field(default_factory=lambda: time.monotonic() + ACT_LIMIT)
    status: Status | None = None
    alerts_before: int = 0

    def until(self, what: str, met: Callable[[Status], bool]) -> Status:
        """Wait for something; raises Missing when it does not come."""
        while time.monotonic() < self.deadline:
            self.status = self.stage.status()
            if met(self.status):
                return self.status
            time.sleep(0.25)
        raise Missing(what)

    def checks(self) -> list[Check]:
        """Of this act, oldest first."""
        found = self.status.checks if self.status else ()
        return [c for c in reversed(found) if c.scheduled_at >= self.since and c.verdict]

    def verdict_of(self, *kinds: VerdictKind) -> Check:
        self.until(
            f"a verdict of {' or '.join(kinds)}",
            lambda status: any(c.verdict and c.verdict.kind in kinds for c in self.checks()),
        )
        return next(c for c in self.checks() if c.verdict and c.verdict.kind in kinds)

    def alert(self, type_: str) -> None:
        """A signed webhook of this type arrived during the act."""

        def arrived(_: Status) -> bool:
            return type_ in self.alerts()

        self.until(f"the alert {type_}", arrived)

    def alerts(self) -> tuple[str, ...]:
        return tuple(r.type for r in self.stage.receiver.received()[self.alerts_before :])

    def accuracy(self) -> float | None:
        """Of the newest answers, once there are enough of them."""
        traffic = self.stage.traffic
        assert traffic is not None
        self.until("enough answers", lambda _: traffic.accuracy() is not None)
        return traffic.accuracy()

    def champion(self) -> str:
        status = self.status = self.stage.status()
        assert status.rollout is not None
        return status.rollout.champion.version

    def change(self, **changes: bool) -> None:
        traffic = self.stage.traffic
        assert traffic is not None
        traffic.change(replace(traffic.world, **changes))

    def newest_run(self) -> tuple[Run | None, GateReport | None]:
        assert self.status is not None
        run = next((r for r in self.status.runs if r.created_at >= self.since), None)
        return run, self.status.gates.get(run.run_id) if run else None

    def served(self, version: str) -> None:
        """The server answers with this version: the swap is over."""
        traffic = self.stage.traffic
        assert traffic is not None

        def answered(_: Status) -> bool:
            return version in traffic.tally.versions

        self.until(f"answers of version {version}", answered)


def camera_ages(play: Playing) -> None:
    play.tell("The camera ages: blurred pictures, half the contrast, out of place.")
    play.change(aged=True)
    _drift_and_recovery(play)


def meaning_changes(play: Playing) -> None:
    play.tell("From now on a 1 is called 7, and a 7 is called 1. The pictures stay the same.")
    play.change(relabelled=True)
    _drift_and_recovery(play, kinds=(VerdictKind.CONCEPT_DRIFT,))
    _, report = play.newest_run()
    if report is not None and not report.contradicted_rows:
        raise Missing("test rows that newer labels contradict")


def _drift_and_recovery(play: Playing, kinds: Sequence[VerdictKind] = HARM) -> None:
    play.act.accuracy_during = play.accuracy()
    play.tell(f"Accuracy falls to {play.act.accuracy_during:.0%}.")
    check = play.verdict_of(*kinds)
    assert check.verdict is not None
    play.tell(f"Noticed, {check.verdict.kind.replace('_', ' ')}: {check.verdict.reason}")
    play.alert(events.DRIFT_DETECTED)
    play.tell("An alert reached the webhook receiver, its signature is valid.")
    before = play.act.version_before
    status = play.until(
        "a promotion",
        lambda s: s.rollout is not None and s.rollout.champion.version != before,
    )
    assert status.rollout is not None
    _, report = play.newest_run()
    play.tell(f"Trained, registered, gated, promoted: {report.reason if report else ''}")
    play.alert(events.MODEL_PROMOTED)
    play.served(status.rollout.champion.version)
    assert play.stage.traffic is not None
    play.stage.traffic.change(play.stage.traffic.world)  # the accuracy shown begins anew
    play.act.accuracy_after = play.accuracy()
    play.tell(f"Version {status.rollout.champion.version} serves; {play.act.accuracy_after:.0%}.")
    if (play.act.accuracy_after or 0) <= (play.act.accuracy_during or 0) + 0.05:
        raise Missing("accuracy coming back")
    play.until(
        "a window of the new version becoming its reference",
        lambda _: any(
            c.verdict and c.verdict.rebased and c.version == play.champion() for c in play.checks()
        ),
    )


def unit_bug(play: Playing) -> None:
    play.tell("A software update sends one pixel a hundred times too large.")
    play.change(unit_bug=True)
    play.act.accuracy_during = play.accuracy()
    check = play.verdict_of(VerdictKind.DATA_BUG)
    assert check.verdict is not None
    play.tell(f"Called a data bug: {check.verdict.reason}")
    play.act.quarantined = check.verdict.quarantined
    play.alert(events.DATA_BUG)
    play.tell(f"{check.verdict.quarantined} rows are in quarantine. The update is taken back.")
    play.change(unit_bug=False)
    play.act.accuracy_after = play.accuracy()
    since = datetime.now(UTC)
    play.until(
        "a clean check afterwards",
        lambda s: any(
            c.verdict and c.verdict.kind is VerdictKind.OK and c.scheduled_at > since
            for c in s.checks
        ),
    )
    if not play.act.quarantined:
        raise Missing("rows in quarantine")
    run, _ = play.newest_run()
    if run is not None or play.champion() != play.act.version_before:
        raise Missing("the platform leaving the model alone")
    play.tell("Nothing was retrained, nothing was promoted.")


def worse_candidate(play: Playing) -> None:
    play.tell("Somebody trains on 40 rows for one epoch and asks for a promotion.")
    done = play.stage.homeostat(
        *("retrain", "--reason", "a colleague's idea", "--"),
        *("python", "train.py", "--data", "{train}", "--rows", "40", "--epochs", "1"),
    )
    play.status = play.stage.status()
    run, report = play.newest_run()
    if done.returncode == 0 or run is None or report is None:
        raise Missing(f"a candidate turned away; the command said: {done.stdout}{done.stderr}")
    if run.stage != "rejected" or play.champion() != play.act.version_before:
        raise Missing(f"a rejection; the run {run.stage}")
    play.tell(f"The gate turns it away: {report.reason}")
    play.alert(events.GATE_REJECTED)
    play.act.accuracy_after = play.accuracy()


ACTS: tuple[tuple[str, str, Callable[[Playing], None]], ...] = (
    ("The camera ages", "drift, retraining, promotion", camera_ages),
    ("A label changes its meaning", "concept drift, found by late labels", meaning_changes),
    ("A unit bug", "quarantine, no retraining", unit_bug),
    ("A worse candidate", "the gate says no", worse_candidate),
)


def play_act(stage: Stage, number: int, tell: Callable[[str], None]) -> Act:
    """Play one act; its figures, and whether it ended as told."""
    title, story, body = ACTS[number]
    act = Act(number=number + 1, title=title, story=story)
    traffic = stage.traffic
    assert traffic is not None
    play = Playing(stage=stage, act=act, tell=tell, alerts_before=len(stage.receiver.received()))
    requests, failed = traffic.tally.requests, len(traffic.tally.failures)
    began = time.monotonic()
    act.version_before = play.champion()
    try:
        act.accuracy_before = play.accuracy()
        body(play)
        act.as_told = True
    except Missing as missing:
        act.missing = f"{missing} did not come within {ACT_LIMIT:.0f} s"
        tell(f"Not as told: {act.missing}.")
        for gate in list(play.status.gates.values())[:3] if play.status else ():
            tell(f"A gate said: {gate.reason}")
    act.seconds = round(time.monotonic() - began, 1)
    act.version_after = play.champion()
    for check in play.checks():
        assert check.verdict is not None
        act.checks += 1
        act.verdicts[check.verdict.kind] = act.verdicts.get(check.verdict.kind, 0) + 1
    _, report = play.newest_run()
    act.gate = report.outcome.value if report else ""
    act.alerts = play.alerts()
    act.requests = traffic.tally.requests - requests
    act.failed = len(traffic.tally.failures) - failed
    if act.failed:
        act.as_told = False
        act.missing = f"{act.failed} failed requests: {traffic.tally.failures[-1]}"
    return act
