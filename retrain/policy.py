"""Verdict and history -> decision: whether anything follows, and in words why (or why not)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from homeostat.records import Action, Decision, Mode, Run, Stage, Verdict, VerdictKind
from homeostat.settings import Settings
from homeostat.words import format_duration

PERSISTED = 3  # checks in a row that could not tell harm from change, before a person is asked
ASK_AGAIN = timedelta(days=1)
LONGEST_WAIT = timedelta(days=7)  # of the back-off, unless the cooldown itself is longer

_HARMFUL = (VerdictKind.HARMFUL_SHIFT, VerdictKind.CONCEPT_DRIFT)


@dataclass(frozen=True, kw_only=True)
class History:
    """What the state store remembers of a model, as far as decisions need it."""

    mode: Mode
    has_champion: bool
    paused: bool = False
    runs: tuple[Run, ...] = ()  # newest first; at least those of the budget's period
    active_run: Run | None = None
    # Of the champion's checks before this one, newest first, those without data left out.
    recent_kinds: tuple[VerdictKind, ...] = ()
    asked_at: datetime | None = None  # when a person was last asked, so as not to nag


@dataclass(frozen=True)
class _Choice:
    action: Action
    reason: str


def decide(
    verdict: Verdict | None,
    history: History,
    settings: Settings,
    now: datetime,
    *,
    decision_id: str,
) -> Decision:
    """What follows from a check; `verdict` is None when only the bootstrap is in question.

    Harm has to be found by `retrain.confirmations` checks in a row. The first one to see a change
    has few rows from after it in its window; the next brings what a candidate can learn from, and
    what passes by itself in the meantime costs no training.
    """
    choice = _choose(verdict, history, settings, now)
    return Decision(
        decision_id=decision_id,
        model=settings.model.name,
        action=choice.action,
        reason=choice.reason,
        verdict_kind=verdict.kind if verdict else None,
        check_id=verdict.check_id if verdict else None,
        created_at=now,
    )


def _choose(
    verdict: Verdict | None, history: History, settings: Settings, now: datetime
) -> _Choice:
    if verdict is not None and verdict.kind is VerdictKind.DATA_BUG:
        # Before everything else, a pause included: such rows must never reach a training set.
        return _Choice(Action.QUARANTINE, f"impossible data is put aside: {verdict.reason}")
    if not history.has_champion:
        return _bootstrap(history, settings, now)
    if verdict is None:
        return _Choice(Action.NOTHING, "no new check")
    if verdict.kind in (VerdictKind.OK, VerdictKind.NO_DATA):
        return _Choice(Action.NOTHING, verdict.reason)
    if history.paused:
        return _Choice(Action.NOTHING, f"the loop is paused; the check said: {verdict.reason}")
    return _answer_shift(verdict, history, settings, now)


def _answer_shift(verdict: Verdict, history: History, settings: Settings, now: datetime) -> _Choice:
    if verdict.kind in _HARMFUL:
        return _answer_harm(verdict, history, settings, now)
    if verdict.kind is VerdictKind.UNDETERMINED:
        return _answer_doubt(verdict, history, now)
    return _Choice(Action.ALERT, verdict.reason)  # a benign shift


def _bootstrap(history: History, settings: Settings, now: datetime) -> _Choice:
    if not settings.retrain.command or settings.model.training_data is None:
        return _Choice(
            Action.NOTHING,
            "no version serves yet: set [retrain] command and [model] training_data, "
            "or register a version and `homeostat promote` it",
        )
    if history.mode is Mode.OBSERVE:
        return _Choice(
            Action.NOTHING,
            'no version serves yet, and mode = "observe" trains none by itself: '
            "run `homeostat retrain`",
        )
    return _blocked(history, settings, now) or _Choice(Action.RETRAIN, "no version serves yet")


def _answer_harm(verdict: Verdict, history: History, settings: Settings, now: datetime) -> _Choice:
    if not settings.retrain.command:
        return _Choice(
            Action.ALERT, f"{verdict.reason}; nothing can be retrained without [retrain] command"
        )
    agreed, wanted = 1 + _leading(history.recent_kinds, _HARMFUL), settings.retrain.confirmations
    if agreed < wanted:
        return _Choice(
            Action.ALERT, f"{verdict.reason}; check {agreed} of {wanted} that have to agree"
        )
    blocked = _blocked(history, settings, now)
    if history.mode is Mode.OBSERVE:
        would = "wait" if blocked else "retrain"
        return _Choice(
            Action.ALERT,
            f'{verdict.reason}; mode = "observe", else the loop would {would}',
        )
    return blocked or _Choice(Action.RETRAIN, verdict.reason)


def _answer_doubt(verdict: Verdict, history: History, now: datetime) -> _Choice:
    in_a_row = 1 + _leading(history.recent_kinds, (VerdictKind.UNDETERMINED,))
    if in_a_row < PERSISTED or _asked_lately(history, now):
        return _Choice(Action.ALERT, verdict.reason)
    return _Choice(
        Action.ASK,
        f"{in_a_row} checks in a row found a change and only {verdict.labelled} matured labels "
        f"to tell its harm by: send labels, or look at the rows yourself. {verdict.reason}",
    )


def _blocked(history: History, settings: Settings, now: datetime) -> _Choice | None:
    """Why no run may start now; None where one may."""
    if history.paused:
        return _Choice(Action.NOTHING, "the loop is paused: `homeostat resume` lets it act")
    if history.active_run is not None:
        run = history.active_run
        if run.stage is Stage.PROPOSED:
            reason = f"the candidate of run {run.run_id} waits for a person: `homeostat promote`"
            return _Choice(Action.NOTHING, reason)
        return _Choice(Action.NOTHING, f"run {run.run_id} is under way already ({run.stage})")
    return _rejected_too_often(history, settings, now) or _too_soon(history, settings, now)


def _rejected_too_often(history: History, settings: Settings, now: datetime) -> _Choice | None:
    rejected = rejections(history.runs)
    if rejected < settings.retrain.max_rejections:
        return None
    reason = (
        f"the last {rejected} candidates were rejected or failed: a person should look at the "
        "data and the training program, then `homeostat retrain`"
    )
    asked = _asked_lately(history, now) and _began_before(history.runs, history.asked_at)
    return _Choice(Action.NOTHING if asked else Action.ASK, reason)


def _too_soon(history: History, settings: Settings, now: datetime) -> _Choice | None:
    if not history.runs:
        return None
    wait = waiting_time(history.runs, settings.retrain.cooldown)
    since = now - history.runs[0].created_at
    if since < wait:
        why = "back-off after rejected candidates" if rejections(history.runs) else "cooldown"
        left = timedelta(seconds=round((wait - since).total_seconds()))
        return _Choice(
            Action.NOTHING,
            f"{why}: the next run may start in {format_duration(left)} "
            f"({format_duration(wait)} after the last one; `homeostat retrain` does not wait)",
        )
    budget = settings.retrain.budget
    spent = sum(now - run.created_at < budget.per for run in history.runs)
    if spent >= budget.count:
        return _Choice(Action.ALERT, f"the budget of {budget} runs is spent ({spent} started)")
    return None


def waiting_time(runs: Sequence[Run], cooldown: timedelta) -> timedelta:
    """From the start of the newest run to the next one: doubled by each rejection in a row."""
    longest = max(cooldown, LONGEST_WAIT)
    doubled: timedelta = cooldown * 2 ** min(rejections(runs), 20)
    return min(longest, doubled)


def rejections(runs: Sequence[Run]) -> int:
    """Rejected or failed runs in a row, newest first."""
    count = 0
    for run in runs:
        if run.stage not in (Stage.REJECTED, Stage.FAILED):
            break
        count += 1
    return count


def _asked_lately(history: History, now: datetime) -> bool:
    return history.asked_at is not None and now - history.asked_at < ASK_AGAIN


def _began_before(runs: Sequence[Run], time: datetime | None) -> bool:
    return not runs or (time is not None and runs[0].created_at <= time)


def _leading(kinds: Sequence[VerdictKind], wanted: Sequence[VerdictKind]) -> int:
    count = 0
    for kind in kinds:
        if kind not in wanted:
            break
        count += 1
    return count
