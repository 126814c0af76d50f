"""Events about verdicts: when something begins, changes or ends, and not one a check."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from homeostat import events as types
from homeostat.records import Verdict, VerdictKind
from homeostat.state import events

DRIFTED = (VerdictKind.HARMFUL_SHIFT, VerdictKind.CONCEPT_DRIFT, VerdictKind.BENIGN_SHIFT)
DRIFT_EVENTS = (types.DRIFT_DETECTED, types.DRIFT_CLEARED)
BUG_EVENTS = (types.DATA_BUG, types.DATA_CLEARED)


def tell_verdict(tx: Connection, verdict: Verdict, now: datetime) -> None:
    """Record the event this verdict is worth, if it says anything new."""
    type_ = _type_of(tx, verdict)
    if type_ is not None:
        events.record(
            tx,
            type_,
            verdict.window.model,
            now,
            kind=verdict.kind.value,
            reason=verdict.reason,
            version=verdict.version,
            check_id=verdict.check_id,
            rows=verdict.rows,
            drift_share=verdict.drift_share,
            error=verdict.errors.current if verdict.errors else None,
            baseline=verdict.errors.baseline if verdict.errors else None,
            quarantined=verdict.quarantined,
        )


def _type_of(tx: Connection, verdict: Verdict) -> str | None:
    model = verdict.window.model
    if verdict.kind is VerdictKind.DATA_BUG:
        last = events.last(tx, model, BUG_EVENTS)
        return None if last and last.type == types.DATA_BUG else types.DATA_BUG
    bug = events.last(tx, model, BUG_EVENTS)
    last = events.last(tx, model, DRIFT_EVENTS)
    is_open = last is not None and last.type == types.DRIFT_DETECTED
    if verdict.kind in DRIFTED:
        said = (last.data.get("kind"), last.data.get("version")) if last and is_open else None
        return None if said == (verdict.kind.value, verdict.version) else types.DRIFT_DETECTED
    if verdict.kind is not VerdictKind.OK:
        return None
    if bug is not None and bug.type == types.DATA_BUG:
        return types.DATA_CLEARED
    return types.DRIFT_CLEARED if is_open else None
