"""The types of events: the words in which the platform tells what happened."""

from __future__ import annotations

DATA_BUG = "data.bug_detected"
DATA_CLEARED = "data.bug_cleared"
DRIFT_DETECTED = "drift.detected"
DRIFT_CLEARED = "drift.cleared"
CHECK_FAILED = "check.failed"
REFERENCE_REBASED = "reference.rebased"
DECISION_ASK = "decision.person_needed"
RETRAIN_STARTED = "retrain.started"
RETRAIN_FAILED = "retrain.failed"
CANDIDATE_REGISTERED = "candidate.registered"
GATE_PASSED = "gate.passed"
GATE_REJECTED = "gate.rejected"
MODEL_PROPOSED = "model.proposed"
MODEL_DECLINED = "model.declined"  # a person turned a proposal away
MODEL_PROMOTED = "model.promoted"
MODEL_ADOPTED = "model.adopted"  # somebody moved the alias in MLflow by hand
MODEL_REFUSED = "model.refused"  # the alias was moved to one whose rows the log could not hold
MODEL_ROLLED_BACK = "model.rolled_back"
TRIAL_STARTED = "model.trial_started"
TRIAL_CHANGED = "model.trial_changed"  # its kind or its share
TRIAL_ENDED = "model.trial_ended"  # by a person, or since another version serves now
UPKEEP_FAILED = "journal.upkeep_failed"  # several times in a row: the disk will fill
SCORE_FAILED = "score.failed"  # a scheduled batch run; it is tried again
LOG_MISFIT = "journal.misfit"  # rows of the version that serves fit no table: none is logged
LOOP_PAUSED = "loop.paused"
LOOP_RESUMED = "loop.resumed"
LOOP_WAITING = "loop.waiting"
LOOP_RECOVERED = "loop.recovered"

# What a person on call wants to hear of when an alert names no patterns of its own.
FOR_PEOPLE: tuple[str, ...] = (
    "data.*",
    "drift.*",
    "check.failed",
    "decision.*",
    "retrain.failed",
    "gate.rejected",
    "model.*",
    "journal.*",
    "score.*",
    "loop.*",
)
