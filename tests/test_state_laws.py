"""What the state database promises: one run, one promotion, one holder of the lease."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeostat.errors import Conflict
from homeostat.records import (
    Action,
    Decision,
    GateOutcome,
    GateReport,
    Rollout,
    Run,
    Stage,
    Verdict,
    VerdictKind,
    VersionRef,
    Window,
)
from homeostat.state import checks, controls, events, rollouts, runs
from homeostat.state.store import State, open_state

NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)
TTL = timedelta(seconds=30)
SECOND = timedelta(seconds=1)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = open_state(f"sqlite:///{tmp_path}/state.db")
    yield state
    state.close()


def a_run(run_id: str, model: str = "shop", at: datetime = NOW) -> Run:
    return Run(
        run_id=run_id,
        model=model,
        decision_id="d",
        action=Action.RETRAIN,
        stage=Stage.PLANNED,
        created_at=at,
        updated_at=at,
    )


def a_rollout(epoch: int, version: str = "1", run_id: str | None = None) -> Rollout:
    ref = VersionRef(version=version, digest="d" * 64)
    return Rollout(model="shop", epoch=epoch, champion=ref, run_id=run_id, created_at=NOW)


def a_verdict(check_id: str, kind: VerdictKind = VerdictKind.OK) -> Verdict:
    window = Window(model="shop", start=NOW - TTL, end=NOW)
    return Verdict(
        check_id=check_id,
        window=window,
        version="1",
        kind=kind,
        reason="because",
        rows=5,
        labelled=1,
    )


def test_one_run_a_model_is_under_way(state: State) -> None:
    """A second is a conflict until the first has ended; another model's is none of its business."""
    with state.begin() as tx:
        runs.start(tx, a_run("r1"))
        runs.start(tx, a_run("m1", model="mill"))
    with pytest.raises(Conflict, match="under way already"), state.begin() as tx:
        runs.start(tx, a_run("r2"))
    with state.begin() as tx:
        run = runs.active(tx, "shop")
        assert run == a_run("r1")
        ended = runs.advance(tx, run, NOW + SECOND, stage=Stage.FAILED, error="it crashed")
        assert ended.finished_at == NOW + SECOND
        assert runs.active(tx, "shop") is None
        runs.start(tx, a_run("r2", at=NOW + SECOND))
        assert [run.run_id for run in runs.newest(tx, "shop")] == ["r2", "r1"]
        assert [run.run_id for run in runs.since(tx, "shop", NOW + SECOND)] == ["r2"]
        assert runs.get(tx, "r1") == ended


def test_a_run_moved_by_another_is_a_conflict(state: State) -> None:
    """Who looked before the move may not write over it."""
    with state.begin() as tx:
        seen = a_run("r1")
        runs.start(tx, seen)
        runs.advance(tx, seen, NOW, stage=Stage.TRAINING)
    with pytest.raises(Conflict, match="no longer at stage planned"), state.begin() as tx:
        runs.advance(tx, seen, NOW, stage=Stage.FAILED)
    with state.begin() as tx:
        assert runs.active(tx, "shop").stage is Stage.TRAINING  # type: ignore[union-attr]


def test_a_gate_report_is_kept_with_its_run(state: State) -> None:
    """Read back as it was; none before."""
    report = GateReport(
        outcome=GateOutcome.PASS,
        reason="better",
        candidate="2",
        champion="1",
        metric="accuracy",
        candidate_test=0.9,
        champion_test=0.8,
        candidate_holdout=None,
        champion_holdout=None,
        test_rows=10,
        contradicted_rows=0,
        holdout_rows=0,
    )
    with state.begin() as tx:
        runs.start(tx, a_run("r1"))
        assert runs.gate_of(tx, "r1") is None
        runs.save_gate(tx, "r1", report)
        assert runs.gate_of(tx, "r1") == report


def test_a_run_is_promoted_once(state: State) -> None:
    """Under whatever epoch a second attempt is made; rollbacks have no run and may repeat."""
    with state.begin() as tx:
        rollouts.write(tx, a_rollout(1, "1", "r1"))
    for again in (a_rollout(2, "1", "r1"), a_rollout(1, "2", "r2")):
        with pytest.raises(Conflict), state.begin() as tx:
            rollouts.write(tx, again)
    with state.begin() as tx:
        rollouts.write(tx, a_rollout(2, "2"))
        rollouts.write(tx, a_rollout(3, "1"))
        assert rollouts.current(tx, "shop") == a_rollout(3, "1")
        assert [r.epoch for r in rollouts.newest(tx, "shop", limit=2)] == [3, 2]
        assert rollouts.current(tx, "mill") is None


def test_what_happens_in_a_transaction_that_fails_did_not_happen(state: State) -> None:
    """The event of a promotion that was refused is not told."""
    with state.begin() as tx:
        rollouts.write(tx, a_rollout(1, "1", "r1"))

    def promote_again() -> None:
        with state.begin() as tx:
            events.record(tx, "model.promoted", "shop", NOW)
            rollouts.write(tx, a_rollout(1, "2", "r2"))

    with pytest.raises(Conflict):
        promote_again()
    with state.begin() as tx:
        assert events.newest(tx, "shop") == []
        assert rollouts.current(tx, "shop") == a_rollout(1, "1", "r1")


def test_a_versions_first_digest_stays(state: State) -> None:
    """Files that changed later do not become the truth."""
    first, changed = VersionRef(version="1", digest="a"), VersionRef(version="1", digest="b")
    with state.begin() as tx:
        assert rollouts.known(tx, "shop", "1") is None
        rollouts.add_version(tx, "shop", first, "r1", NOW)
        rollouts.add_version(tx, "shop", changed, "r2", NOW)
        rollouts.set_baseline(tx, "shop", "1", 0.125, 80)
        known = rollouts.known(tx, "shop", "1")
        assert known == rollouts.KnownVersion(
            ref=first, run_id="r1", baseline_error=0.125, baseline_rows=80
        )


def test_a_version_has_one_reference_of_each_kind(state: State) -> None:
    """A newer one takes the older one's place."""
    old = rollouts.Reference(kind="production", path="a", created_at=NOW)
    new = rollouts.Reference(kind="production", path="b", created_at=NOW)
    training = rollouts.Reference(kind="training", path="c", created_at=NOW)
    with state.begin() as tx:
        for reference in (old, training, new):
            rollouts.set_reference(tx, "shop", "1", reference)
        found = rollouts.references_of(tx, "shop", "1")
        assert found == {"production": new, "training": training}
        assert rollouts.references_of(tx, "shop", "2") == {}


def test_a_check_is_begun_ended_and_decided_upon_once(state: State) -> None:
    """Each step is found by who has to do the next one."""
    with state.begin() as tx:
        for i, check_id in enumerate(("c1", "c2", "c3")):
            checks.begin(tx, check_id, "shop", "1", NOW + i * SECOND)
        assert [check.check_id for check in checks.running(tx, "shop")] == ["c1", "c2", "c3"]
        checks.finish(tx, a_verdict("c1", VerdictKind.DATA_BUG), NOW + TTL)
        checks.finish(tx, a_verdict("c2", VerdictKind.NO_DATA), NOW + TTL)
        checks.fail(tx, "c3", "out of memory", NOW + TTL)
        assert [check.check_id for check in checks.undecided(tx, "shop")] == ["c1", "c2"]
        checks.mark_decided(tx, "c1")
        assert [check.check_id for check in checks.undecided(tx, "shop")] == ["c2"]
        assert checks.running(tx, "shop") == []
        assert [check.check_id for check in checks.newest(tx, "shop", 2)] == ["c3", "c2"]
        found = checks.get(tx, "c1")
        assert found is not None
        assert found.verdict == a_verdict("c1", VerdictKind.DATA_BUG)
        assert found.finished_at == NOW + TTL
        assert checks.get(tx, "c4") is None


def test_a_verdict_is_decided_once(state: State) -> None:
    """A second decision on the same check is refused; people's, without a check, are not."""

    def decide(decision_id: str, check_id: str | None, action: Action = Action.RETRAIN) -> Decision:
        decision = Decision(
            decision_id=decision_id,
            model="shop",
            action=action,
            reason="drift",
            check_id=check_id,
            created_at=NOW,
        )
        with state.begin() as tx:
            runs.decide(tx, decision)
        return decision

    first = decide("d1", "c1")
    with pytest.raises(Conflict, match="c1"):
        decide("d2", "c1")
    second = decide("d3", None, Action.ASK)
    third = decide("d4", None, Action.NOTHING)
    with state.begin() as tx:
        assert runs.newest_decisions(tx, "shop") == [third, second, first]
        assert runs.last_decision(tx, "shop", Action.RETRAIN, Action.PROBE) == first
        assert runs.last_decision(tx, "shop", Action.PROBE) is None


def test_pause_and_resume_leave_who_and_why(state: State) -> None:
    """Nobody said anything: it runs."""
    with state.begin() as tx:
        assert controls.control(tx, "shop") == controls.Control()
        for paused, reason in ((True, "holidays"), (False, "back")):
            controls.set_paused(tx, "shop", paused, reason=reason, actor="ada", now=NOW)
            assert controls.control(tx, "shop") == controls.Control(
                paused=paused, reason=reason, actor="ada", updated_at=NOW
            )


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from(["take", "take", "take", "release"]),
        st.integers(0, 40),
    ),
    max_size=25,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_a_lease_has_one_holder_and_its_epoch_tells_a_sleeper(
    state: State, steps: list[tuple[str, str, int]]
) -> None:
    """While one holds it the other gets nothing; each change of holder is a new epoch."""
    now, name = NOW, f"loop-{id(steps)}"
    with state.begin() as tx:
        tx.exec_driver_sql("DELETE FROM leases")
    holder, until, epoch = "", NOW - SECOND, 0  # the model of it
    for who, what, seconds in steps:
        now += seconds * SECOND
        with state.begin() as tx:
            if what == "release":
                controls.release_lease(tx, name, who)
                until = NOW - SECOND if who == holder else until
                continue
            taken = controls.take_lease(tx, name, who, now, TTL)
            if holder not in ("", who) and until > now:
                assert taken is None
                continue
            assert taken is not None
            assert taken.epoch == epoch + (who != holder)
            holder, until, epoch = who, now + TTL, taken.epoch
            assert controls.lease(tx, name) == taken


def test_an_event_becomes_one_delivery_an_endpoint(state: State) -> None:
    """Due at once; settled, it is due later, or never again."""
    with state.begin() as tx:
        told = [events.record(tx, "model.promoted", "shop", NOW, n=n) for n in range(3)]
        assert events.undispatched(tx) == told
        events.dispatch(tx, told[0], ["https://a", "https://b"], NOW)
        events.dispatch(tx, told[1], [], NOW)
        assert events.undispatched(tx) == told[2:]
        assert events.newest(tx, "shop", limit=2) == [told[2], told[1]]
        assert events.due(tx, NOW - SECOND) == []
        to_a, to_b = events.due(tx, NOW)
        assert [d.endpoint for d in events.due(tx, NOW, endpoint="https://b")] == ["https://b"]
        assert events.strays(tx, ["https://a"]) == [to_b]
        assert events.outbox_level(tx) == events.OutboxLevel(waiting=2, oldest=NOW)
        events.settle(tx, to_a, NOW, status="delivered")
        events.settle(tx, to_b, NOW, status="waiting", next_at=NOW + TTL, error="answered 500")
        assert events.due(tx, NOW) == []
        [again] = events.due(tx, NOW + TTL)
        assert (again.endpoint, again.attempts, again.event) == ("https://b", 1, told[0])
        events.settle(tx, again, NOW + TTL, status="dead")
        assert events.outbox_level(tx) == events.OutboxLevel(waiting=0, oldest=None)


def test_times_keep_their_moment_whatever_their_zone(state: State) -> None:
    """Stored in UTC and sorted by time, not by text."""
    late = NOW.astimezone(timezone(timedelta(hours=-9))) + SECOND
    with state.begin() as tx:
        checks.begin(tx, "late", "shop", "1", late)
        checks.begin(tx, "early", "shop", "1", NOW)
        found = checks.newest(tx, "shop", 2)
        assert [check.check_id for check in found] == ["late", "early"]
        assert found[0].scheduled_at == late
        assert found[0].scheduled_at.utcoffset() == timedelta(0)
