"""The machine on a real state: what a person ordered holds, and nothing jams it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import project_kit as kit
import pytest

from homeostat import events as types
from homeostat.records import (
    Action,
    Decision,
    GateOutcome,
    GateReport,
    Run,
    Stage,
    Verdict,
    VerdictKind,
    VersionRef,
    Window,
)
from homeostat.settings import load
from homeostat.state import checks, controls, events, rollouts, runs
from loop import checking, deciding, retraining, telling
from loop.context import Context
from loop.holder import holder_name, is_dead
from loop.running import open_context
from retrain import promotion

NOW = datetime(2026, 5, 4, tzinfo=UTC)
ONE, TWO, THREE = (VersionRef(version=str(n), digest=str(n) * 64) for n in (1, 2, 3))


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    settings = load(kit.make_project(tmp_path / "cancer"), {})
    made = replace(open_context(settings, os.environ, preload=False), clock=lambda: NOW)
    with made.state.begin() as tx:
        for ref in (ONE, TWO, THREE):
            rollouts.add_version(tx, made.model, ref, None, NOW)
        promotion.promote(tx, made.model, ONE, run_id=None, reason="", actor="a", now=NOW)
    yield made
    made.executor.close()
    made.state.close()


def passed(context: Context, candidate: VersionRef, champion: str) -> Run:
    """A run that passed its gate against a champion and is about to be promoted."""
    report = GateReport(
        outcome=GateOutcome.PASS,
        reason="better",
        candidate=candidate.version,
        champion=champion,
        metric="accuracy",
        candidate_test=0.9,
        champion_test=0.8,
        candidate_holdout=None,
        champion_holdout=None,
        test_rows=100,
        contradicted_rows=0,
        holdout_rows=0,
    )
    decision = Decision(
        decision_id="d", model=context.model, action=Action.RETRAIN, reason="", created_at=NOW
    )
    with context.state.begin() as tx:
        runs.decide(tx, decision)
        run = deciding.start_run(tx, decision, NOW, train_until=None, candidate=candidate)
        runs.save_gate(tx, run.run_id, report)
        return runs.advance(tx, run, NOW, stage=Stage.PROMOTING)


def standing(context: Context, run: Run) -> tuple[Stage, str]:
    with context.state.begin() as tx:
        found, rollout = runs.get(tx, run.run_id), rollouts.current(tx, context.model)
    assert found is not None
    assert rollout is not None
    return found.stage, rollout.champion.version


def test_what_passed_is_promoted_once(context: Context) -> None:
    """However often the tick comes."""
    run = passed(context, TWO, champion="1")
    for _ in range(3):
        retraining.advance(context, NOW)
    assert standing(context, run) == (Stage.PROMOTED, "2")
    with context.state.begin() as tx:
        assert len(rollouts.newest(tx, context.model)) == 2


def test_nothing_is_promoted_while_paused(context: Context) -> None:
    """Also while something else of ours runs; it goes on after resume."""
    run = passed(context, TWO, champion="1")
    folder = context.settings.jobs_path / "check-x"
    folder.mkdir()
    context.executor.start_program("check-x", ["sleep", "60"], folder=folder, limit=60)
    pause(context, True)
    retraining.advance(context, NOW)
    assert standing(context, run) == (Stage.PROMOTING, "1")
    pause(context, False)
    retraining.advance(context, NOW)
    assert standing(context, run) == (Stage.PROMOTED, "2")


def pause(context: Context, paused: bool) -> None:
    with context.state.begin() as tx:
        controls.set_paused(tx, context.model, paused, reason="", actor="ada", now=NOW)


def test_a_gate_passed_against_another_champion_proves_nothing(context: Context) -> None:
    """After a person's promotion meanwhile, the candidate meets the new champion first."""
    run = passed(context, TWO, champion="1")
    with context.state.begin() as tx:
        promotion.promote(tx, context.model, THREE, run_id=None, reason="", actor="ada", now=NOW)
    retraining.advance(context, NOW)
    assert standing(context, run)[1] == "3"
    assert standing(context, run)[0] in (Stage.GATING, Stage.FAILED), "gated anew, not promoted"


def test_a_candidate_that_a_person_promoted_first_ends_its_run(context: Context) -> None:
    """The run does not stand in the way of the next one."""
    run = passed(context, TWO, champion="1")
    with context.state.begin() as tx:
        promotion.promote(tx, context.model, TWO, run_id=None, reason="", actor="ada", now=NOW)
    retraining.advance(context, NOW)
    assert standing(context, run) == (Stage.PROMOTED, "2")
    with context.state.begin() as tx:
        assert runs.active(tx, context.model) is None


def test_a_program_whose_run_was_ended_is_stopped(context: Context) -> None:
    """`homeostat reject` leaves nothing running."""
    folder = context.settings.jobs_path / "gone-train-1"
    folder.mkdir()
    context.executor.start_program("gone-train-1", ["sleep", "600"], folder=folder, limit=600)
    retraining.advance(context, NOW)
    assert context.executor.names() == []


@pytest.mark.parametrize("owner", ["elsewhere:1:2:7", None])
def test_a_check_whose_process_is_gone_does_not_block_the_next(
    context: Context, owner: str | None
) -> None:
    """Of an owner on another machine nothing is known: after the time limit it counts as gone."""
    folder = context.settings.jobs_path / "check-c1"
    folder.mkdir()
    if owner:
        (folder / checking.OWNER).write_text(owner)
    with context.state.begin() as tx:
        checks.begin(tx, "c1", context.model, "1", NOW)
    checking.collect(context, NOW + timedelta(days=2))
    with context.state.begin() as tx:
        assert checks.running(tx, context.model) == []


def test_a_living_owner_keeps_its_check(context: Context) -> None:
    """The loop leaves a check by hand to the command that waits for it."""
    folder = context.settings.jobs_path / "check-c1"
    folder.mkdir()
    (folder / checking.OWNER).write_text(holder_name())
    with context.state.begin() as tx:
        checks.begin(tx, "c1", context.model, "1", NOW)
    checking.collect(context, NOW)
    with context.state.begin() as tx:
        assert [check.check_id for check in checks.running(tx, context.model)] == ["c1"]


def test_only_a_process_seen_from_here_can_be_dead() -> None:
    """Ours is alive, a process that is no more is dead, of another machine's nothing is known."""
    house = holder_name().rpartition(":")[0]
    assert not is_dead(holder_name())
    assert is_dead(f"{house}:4194303")
    assert not is_dead("elsewhere:0:0:4194303")


def test_an_event_comes_when_something_changes_and_not_at_every_check(context: Context) -> None:
    """Each kind of drift once a version, cleared once, a data bug begun and over."""
    told = [
        (VerdictKind.OK, "1", None),
        (VerdictKind.HARMFUL_SHIFT, "1", types.DRIFT_DETECTED),
        (VerdictKind.HARMFUL_SHIFT, "1", None),
        (VerdictKind.CONCEPT_DRIFT, "1", types.DRIFT_DETECTED),
        (VerdictKind.CONCEPT_DRIFT, "2", types.DRIFT_DETECTED),
        (VerdictKind.UNDETERMINED, "2", None),
        (VerdictKind.OK, "2", types.DRIFT_CLEARED),
        (VerdictKind.DATA_BUG, "2", types.DATA_BUG),
        (VerdictKind.DATA_BUG, "2", None),
        (VerdictKind.NO_DATA, "2", None),
        (VerdictKind.OK, "2", types.DATA_CLEARED),
        (VerdictKind.OK, "2", None),
    ]
    for number, (kind, version, expected) in enumerate(told):
        verdict = Verdict(
            check_id=str(number),
            window=Window(model=context.model, start=NOW, end=NOW),
            version=version,
            kind=kind,
            reason="",
            rows=1,
            labelled=0,
        )
        with context.state.begin() as tx:
            before = len(events.newest(tx, context.model, 100))
            telling.tell_verdict(tx, verdict, NOW + timedelta(seconds=number))
            new = events.newest(tx, context.model, 100)
        assert [event.type for event in new[: len(new) - before]] == [expected] * bool(expected)
