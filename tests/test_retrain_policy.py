"""Verdict and history -> decision: the table of rules, and laws that hold for any history."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.records import (
    Action,
    Decision,
    Mode,
    Run,
    Stage,
    Verdict,
    VerdictKind,
    Window,
)
from homeostat.settings import Settings
from homeostat.settings_of_serving import ModelSettings
from homeostat.settings_of_the_loop import RetrainSettings
from homeostat.words import Rate
from retrain.policy import PERSISTED, History, decide, rejections, waiting_time

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SETTINGS = Settings(
    model=ModelSettings(name="digits", training_data=Path("train.parquet")),
    retrain=RetrainSettings(command=("python", "train.py"), cooldown=6 * HOUR),
)
FRESH = History(mode=Mode.ACT, has_champion=True)
# The check before found harm already: this one agrees.
SERVING = replace(FRESH, recent_kinds=(VerdictKind.CONCEPT_DRIFT,))


def verdict(kind: VerdictKind, labelled: int = 300) -> Verdict:
    return Verdict(
        check_id="check-1",
        window=Window(model="digits", start=NOW - HOUR, end=NOW),
        version="3",
        kind=kind,
        reason=f"it looked like {kind}",
        rows=1000,
        labelled=labelled,
    )


def run(stage: Stage, ago: timedelta) -> Run:
    return Run(
        run_id=f"run-{ago}",
        model="digits",
        decision_id="d",
        action=Action.RETRAIN,
        stage=stage,
        created_at=NOW - ago,
        updated_at=NOW - ago,
    )


def decided(
    seen: Verdict | None, history: History = SERVING, settings: Settings = SETTINGS
) -> Decision:
    return decide(seen, history, settings, NOW, decision_id="decision-1")


@pytest.mark.parametrize(
    ("kind", "action"),
    [
        (VerdictKind.OK, Action.NOTHING),
        (VerdictKind.NO_DATA, Action.NOTHING),
        (VerdictKind.DATA_BUG, Action.QUARANTINE),
        (VerdictKind.BENIGN_SHIFT, Action.ALERT),
        (VerdictKind.HARMFUL_SHIFT, Action.RETRAIN),
        (VerdictKind.CONCEPT_DRIFT, Action.RETRAIN),
        (VerdictKind.UNDETERMINED, Action.ALERT),
    ],
)
def test_each_kind_of_verdict_has_its_answer(kind: VerdictKind, action: Action) -> None:
    """With a clean history the kind of verdict alone decides."""
    decision = decided(verdict(kind))
    assert decision.action is action
    assert decision.check_id == "check-1"
    assert decision.verdict_kind is kind
    assert decision.decision_id == "decision-1"
    assert decision.created_at == NOW
    assert f"it looked like {kind}" in decision.reason


@pytest.mark.parametrize(
    ("history", "action", "word"),
    [
        (replace(SERVING, paused=True), Action.NOTHING, "paused"),
        (replace(SERVING, mode=Mode.OBSERVE), Action.ALERT, "would retrain"),
        (replace(SERVING, mode=Mode.PROPOSE), Action.RETRAIN, "looked like"),
        (replace(SERVING, active_run=run(Stage.TRAINING, HOUR)), Action.NOTHING, "under way"),
        (replace(SERVING, active_run=run(Stage.PROPOSED, HOUR)), Action.NOTHING, "waits for a"),
        (replace(SERVING, runs=(run(Stage.PROMOTED, HOUR),)), Action.NOTHING, "in 5h"),
        (replace(SERVING, runs=(run(Stage.PROMOTED, 6 * HOUR),)), Action.RETRAIN, "looked like"),
        (replace(SERVING, runs=(run(Stage.REJECTED, 7 * HOUR),)), Action.NOTHING, "back-off"),
        (replace(SERVING, runs=(run(Stage.REJECTED, 12 * HOUR),)), Action.RETRAIN, "looked like"),
        (
            replace(SERVING, runs=tuple(run(Stage.FAILED, 30 * n * HOUR) for n in (1, 2, 3))),
            Action.ASK,
            "3 candidates",
        ),
    ],
)
def test_harm_is_answered_only_where_a_run_may_start(
    history: History, action: Action, word: str
) -> None:
    """Pause, mode, a run under way, cooldown, back-off and rejections stand before a retraining."""
    decision = decided(verdict(VerdictKind.HARMFUL_SHIFT), history)
    assert decision.action is action
    assert word in decision.reason


@pytest.mark.parametrize(
    ("before", "confirmations", "action"),
    [
        ((), 2, Action.ALERT),
        ((VerdictKind.OK, VerdictKind.CONCEPT_DRIFT), 2, Action.ALERT),
        ((VerdictKind.CONCEPT_DRIFT,), 2, Action.RETRAIN),
        ((VerdictKind.CONCEPT_DRIFT,), 3, Action.ALERT),
        ((), 1, Action.RETRAIN),
    ],
)
def test_checks_in_a_row_have_to_agree(
    before: tuple[VerdictKind, ...], confirmations: int, action: Action
) -> None:
    """Harm of either kind counts; what passed in between begins the count anew."""
    retrain = replace(SETTINGS.retrain, confirmations=confirmations)
    history = replace(FRESH, recent_kinds=before)
    seen = verdict(VerdictKind.HARMFUL_SHIFT)
    decision = decided(seen, history, replace(SETTINGS, retrain=retrain))
    assert decision.action is action
    assert ("have to agree" in decision.reason) == (action is Action.ALERT)


def test_the_budget_bounds_the_runs_of_its_period() -> None:
    """Two runs a day means that the third waits until the first is a day old."""
    retrain = replace(
        SETTINGS.retrain, budget=Rate(2, timedelta(days=1)), cooldown=timedelta(minutes=1)
    )
    settings = replace(SETTINGS, retrain=retrain)
    runs = (run(Stage.PROMOTED, 2 * HOUR), run(Stage.PROMOTED, 3 * HOUR))
    seen = verdict(VerdictKind.CONCEPT_DRIFT)
    spent = decided(seen, replace(SERVING, runs=runs), settings)
    assert spent.action is Action.ALERT
    assert "2 per 1d" in spent.reason
    older = (runs[0], run(Stage.PROMOTED, 24 * HOUR))
    assert decided(seen, replace(SERVING, runs=older), settings).action is Action.RETRAIN


def test_a_person_is_asked_once_and_not_at_every_check() -> None:
    """After the question the loop waits for an answer, and asks again a day later."""
    runs = tuple(run(Stage.REJECTED, 50 * n * HOUR) for n in (1, 2, 3))
    seen = verdict(VerdictKind.HARMFUL_SHIFT)
    asked = replace(SERVING, runs=runs, asked_at=NOW - HOUR)
    assert decided(seen, asked).action is Action.NOTHING
    assert decided(seen, replace(asked, asked_at=NOW - 25 * HOUR)).action is Action.ASK
    again = (run(Stage.REJECTED, timedelta(minutes=10)), *runs)  # rejected once more since then
    assert decided(seen, replace(asked, runs=again)).action is Action.ASK


def test_doubt_that_stays_goes_to_a_person() -> None:
    """A change whose harm cannot be told is an alert at first, a question when it persists."""
    seen = verdict(VerdictKind.UNDETERMINED, labelled=12)
    doubts = (VerdictKind.UNDETERMINED,) * (PERSISTED - 1)
    broken = (VerdictKind.UNDETERMINED, VerdictKind.OK, VerdictKind.UNDETERMINED)
    asked = decided(seen, replace(SERVING, recent_kinds=doubts))
    assert asked.action is Action.ASK
    assert "12 matured labels" in asked.reason
    assert decided(seen, replace(SERVING, recent_kinds=doubts[1:])).action is Action.ALERT
    assert decided(seen, replace(SERVING, recent_kinds=broken)).action is Action.ALERT
    lately = replace(SERVING, recent_kinds=doubts, asked_at=NOW - HOUR)
    assert decided(seen, lately).action is Action.ALERT


def test_the_first_version_is_trained_by_the_loop() -> None:
    """Without a champion a configured project trains one, and does not loop hotly on failure."""
    empty = replace(SERVING, has_champion=False)
    assert decided(None, empty).action is Action.RETRAIN
    assert decided(None, empty).reason == "no version serves yet"
    failed = replace(empty, runs=(run(Stage.FAILED, HOUR),))
    assert decided(None, failed).action is Action.NOTHING
    assert decided(None, replace(empty, paused=True)).action is Action.NOTHING
    assert decided(None, replace(empty, mode=Mode.OBSERVE)).action is Action.NOTHING
    no_program = replace(SETTINGS, retrain=replace(SETTINGS.retrain, command=()))
    assert "[retrain] command" in decided(None, empty, no_program).reason
    assert decided(None).action is Action.NOTHING


def test_harm_without_a_program_is_told() -> None:
    """A project that cannot retrain still hears of the harm."""
    settings = replace(SETTINGS, retrain=replace(SETTINGS.retrain, command=()))
    decision = decided(verdict(VerdictKind.HARMFUL_SHIFT), settings=settings)
    assert decision.action is Action.ALERT
    assert "[retrain] command" in decision.reason


def test_waiting_doubles_with_each_rejection_in_a_row() -> None:
    """One promotion in between ends the back-off, and a week bounds it."""
    rejected = [run(Stage.REJECTED, n * HOUR) for n in range(3)]
    assert waiting_time([], 6 * HOUR) == 6 * HOUR
    assert waiting_time(rejected, 6 * HOUR) == 48 * HOUR
    assert rejections([run(Stage.PROMOTED, HOUR), *rejected]) == 0
    assert waiting_time(rejected * 20, 6 * HOUR) == timedelta(days=7)
    assert waiting_time(rejected, timedelta(days=30)) == timedelta(days=30)


stages = st.sampled_from([Stage.PROMOTED, Stage.REJECTED, Stage.FAILED])
some_runs = st.lists(
    st.builds(run, stages, st.integers(0, 500_000).map(lambda s: timedelta(seconds=s))), max_size=8
).map(lambda runs: tuple(sorted(runs, key=lambda r: r.created_at, reverse=True)))
histories = st.builds(
    History,
    mode=st.sampled_from(Mode),
    has_champion=st.booleans(),
    paused=st.booleans(),
    runs=some_runs,
    active_run=st.none() | st.builds(run, st.sampled_from(Stage), st.just(HOUR)),
    recent_kinds=st.lists(st.sampled_from(VerdictKind), max_size=4).map(tuple),
    asked_at=st.none() | st.just(NOW - HOUR),
)
verdicts = st.none() | st.sampled_from(VerdictKind).map(verdict)


@given(histories)
def test_a_data_bug_never_trains(history: History) -> None:
    """Whatever happened before, impossible rows lead to no training."""
    assert decided(verdict(VerdictKind.DATA_BUG), history).action is Action.QUARANTINE


@given(verdicts, histories)
def test_a_run_starts_only_where_it_may(seen: Verdict | None, history: History) -> None:
    """Never while paused, observing, with a run under way, in the cooldown or over the budget."""
    decision = decided(seen, history)
    if decision.action not in (Action.RETRAIN, Action.PROBE):
        return
    assert not history.paused
    assert history.active_run is None
    assert history.mode is not Mode.OBSERVE
    assert all(NOW - r.created_at >= SETTINGS.retrain.cooldown for r in history.runs)
    day = [r for r in history.runs if NOW - r.created_at < timedelta(days=1)]
    assert len(day) < SETTINGS.retrain.budget.count
    assert rejections(history.runs) < SETTINGS.retrain.max_rejections


@given(verdicts, histories)
def test_a_decision_follows_from_what_is_known(seen: Verdict | None, history: History) -> None:
    """The same verdict and history give the same decision, and it always says why."""
    assert decided(seen, history) == decided(seen, history)
    assert decided(seen, history).reason
