"""A version on trial beside the champion: begun, changed and ended, each one new rollout record and
its event. Like promotion, these take an open transaction.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from homeostat import events as event_types
from homeostat.errors import Conflict, NotReady
from homeostat.records import Rollout, Trial
from homeostat.state import rollouts
from retrain.promotion import remember, tell_trial


def start(
    tx: Connection, model: str, trial: Trial, *, seen: int, reason: str, actor: str, now: datetime
) -> Rollout:
    """Put a version on trial, or change kind and share of the one that is. Raises NotReady without
    a champion, Conflict where it is the champion or another version is on trial.

    `seen` is the epoch whose champion it was compared with: raises Conflict when that is over.
    """
    current = _current(tx, model)
    version, before = trial.version.version, current.trial
    if current.epoch != seen:
        raise Conflict(
            f"version {version} was compared with the champion of epoch {seen} of {model}, and "
            f"meanwhile epoch {current.epoch} began (version {current.champion.version} serves, "
            f"by {current.actor}): nothing was changed; give the same command again"
        )
    if version == current.champion.version:
        raise Conflict(f"version {version} of {model} is the champion: it answers everything")
    if before is not None and before.version.version != version:
        raise Conflict(
            f"version {before.version.version} of {model} is on trial already, and one is at a "
            "time: `homeostat trial stop` ends it"
        )
    if before == trial:
        raise Conflict(
            f"version {version} of {model} is on trial as {trial.kind} like that already"
        )
    remember(tx, model, trial.version, None, now)
    rollout = _next(tx, current, trial, reason, actor, now)
    type_ = event_types.TRIAL_CHANGED if before else event_types.TRIAL_STARTED
    tell_trial(tx, type_, rollout, trial)
    return rollout


def stop(tx: Connection, model: str, *, reason: str, actor: str, now: datetime) -> Rollout:
    """The champion answers everything again. Raises NotReady where no version is on trial."""
    current = _current(tx, model)
    if current.trial is None:
        raise NotReady(f"no version of {model} is on trial")
    rollout = _next(tx, current, None, reason, actor, now)
    tell_trial(tx, event_types.TRIAL_ENDED, rollout, current.trial)
    return rollout


def _current(tx: Connection, model: str) -> Rollout:
    current = rollouts.current(tx, model)
    if current is None:
        raise NotReady(
            f"no version of {model} serves that another could be tried beside: "
            "`homeostat promote` one first"
        )
    return current


def _next(
    tx: Connection, current: Rollout, trial: Trial | None, reason: str, actor: str, now: datetime
) -> Rollout:
    rollout = replace(
        current,
        epoch=current.epoch + 1,
        trial=trial,
        reason=reason,
        actor=actor,
        run_id=None,
        created_at=now,
        champion_since=current.since,
    )
    rollouts.write(tx, rollout)
    return rollout
