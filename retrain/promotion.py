"""Who serves: promotion, rollback and adoption, each one new rollout record and its event.

Each of them ends the trial of a version beside the champion, since it is another champion then.

All three take an open transaction, so that the record, the event and whatever the caller writes
beside them (the run's stage) become true together or not at all.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from homeostat import events as event_types
from homeostat.errors import Conflict, IntegrityError, NotReady
from homeostat.records import Rollout, Trial, VersionRef
from homeostat.state import events, rollouts


def promote(
    tx: Connection,
    model: str,
    candidate: VersionRef,
    *,
    run_id: str | None,
    reason: str,
    actor: str,
    now: datetime,
) -> Rollout:
    """Make a version the champion. Raises Conflict when its run was promoted already."""
    current = rollouts.current(tx, model)
    if current and current.champion.version == candidate.version:
        raise Conflict(f"version {candidate.version} of {model} is the champion already")
    rollout = _next(tx, model, candidate, current, reason, actor, now, run_id)
    _tell(tx, event_types.MODEL_PROMOTED, rollout)
    return rollout


def roll_back(
    tx: Connection, model: str, *, to: str | None, reason: str, actor: str, now: datetime
) -> Rollout:
    """Back to the previous champion, or to one that served once. Raises NotReady without one, and
    Conflict where the previous one is what the last rollback left: only by name does it serve
    again."""
    current = rollouts.current(tx, model)
    if current is None:
        raise NotReady(f"no version of {model} was ever promoted, so there is nothing to undo")
    target = current.previous if to is None else _served(tx, model, to)
    if target is None:
        raise NotReady(
            f"version {current.champion.version} is the first of {model}: nothing to go back to"
        )
    if target.version == current.champion.version:
        raise Conflict(f"version {target.version} of {model} is the champion already")
    if to is None and _is_rollback(tx, model):
        raise Conflict(
            f"version {target.version} of {model} was rolled back from at {current.since:%F %T} "
            f"UTC, and version {current.champion.version} serves: nothing was changed. `homeostat "
            f"rollback --to {target.version}` serves it again, --to another one goes further back"
        )
    rollout = _next(tx, model, target, current, reason, actor, now)
    _tell(tx, event_types.MODEL_ROLLED_BACK, rollout)
    return rollout


def adopt(tx: Connection, model: str, version: VersionRef, *, seen: int, now: datetime) -> Rollout:
    """Follow a person who moved the champion's alias in MLflow; nothing where it is so already.

    `seen` is the epoch that held when the alias was read, 0 for none: raises Conflict when
    somebody promoted or rolled back since, whose word is newer than the alias.
    """
    current = rollouts.current(tx, model)
    if (current.epoch if current else 0) != seen:
        raise Conflict(f"epoch {seen} of {model} is over; the alias may be older than what is now")
    if current and current.champion.version == version.version:
        return current
    reason = "the alias champion was moved in MLflow"
    rollout = _next(tx, model, version, current, reason, "mlflow", now)
    _tell(tx, event_types.MODEL_ADOPTED, rollout)
    return rollout


def _next(
    tx: Connection,
    model: str,
    champion: VersionRef,
    current: Rollout | None,
    reason: str,
    actor: str,
    now: datetime,
    run_id: str | None = None,
) -> Rollout:
    remember(tx, model, champion, run_id, now)
    rollout = Rollout(
        model=model,
        epoch=current.epoch + 1 if current else 1,
        champion=champion,
        previous=current.champion if current else None,
        reason=reason,
        actor=actor,
        run_id=run_id,
        created_at=now,
    )
    rollouts.write(tx, rollout)
    if current and current.trial:  # what it was compared with serves no more
        tell_trial(tx, event_types.TRIAL_ENDED, rollout, current.trial)
    return rollout


def remember(
    tx: Connection, model: str, ref: VersionRef, run_id: str | None, now: datetime
) -> None:
    """A version's digest, at first sight; raises IntegrityError where it has another one now."""
    rollouts.add_version(tx, model, ref, run_id, now)
    known = rollouts.known(tx, model, ref.version)
    if known is not None and known.ref.digest != ref.digest:
        raise IntegrityError(
            f"version {ref.version} of {model} has the digest {ref.digest[:12]}, but was first "
            f"seen with {known.ref.digest[:12]}: its files were changed after registration"
        )


def tell_trial(tx: Connection, type_: str, rollout: Rollout, trial: Trial) -> None:
    """Of a trial that a new record begins, changes or ends."""
    events.record(
        tx,
        type_,
        rollout.model,
        rollout.created_at,
        version=trial.version.version,
        champion=rollout.champion.version,
        kind=trial.kind.value,
        share=trial.share,
        epoch=rollout.epoch,
        reason=rollout.reason,
        actor=rollout.actor,
    )


def _served(tx: Connection, model: str, version: str) -> VersionRef:
    for rollout in rollouts.newest(tx, model, limit=10_000):
        if rollout.champion.version == version:
            return rollout.champion
    raise NotReady(f"version {version} of {model} never served; `homeostat promote` it instead")


def _is_rollback(tx: Connection, model: str) -> bool:
    """Whether the champion came to serve by a rollback; trials begun and ended since are none."""
    [record] = rollouts.newest_champions(tx, model, limit=1)
    told = events.newest_of(tx, model, event_types.MODEL_ROLLED_BACK)
    return any(event.data["epoch"] == record.epoch for event in told)


def _tell(tx: Connection, type_: str, rollout: Rollout) -> None:
    events.record(
        tx,
        type_,
        rollout.model,
        rollout.created_at,
        version=rollout.champion.version,
        previous=rollout.previous.version if rollout.previous else None,
        epoch=rollout.epoch,
        run_id=rollout.run_id,
        reason=rollout.reason,
        actor=rollout.actor,
    )
