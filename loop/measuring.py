"""The loop's metrics, set from the records that pass by."""

from __future__ import annotations

from datetime import datetime

from homeostat.records import Decision, Rollout, Run, TrialKind, Verdict
from homeostat.state.upkeeps import Upkeep
from loop.context import Context

SHOWN_COLUMNS = 20


def check_done(context: Context, verdict: Verdict, now: datetime) -> None:
    model, made = context.model, context.instruments
    made.counter("homeostat_checks_total", model=model, verdict=verdict.kind.value).inc()
    made.histogram("homeostat_check_seconds", model=model).observe(verdict.seconds)
    made.gauge("homeostat_last_check_timestamp_seconds", model=model).set(now.timestamp())
    made.gauge("homeostat_window_rows", model=model).set(verdict.rows)
    made.gauge("homeostat_window_labelled_rows", model=model).set(verdict.labelled)
    made.counter("homeostat_quarantined_rows_total", model=model).inc(verdict.quarantined)
    if verdict.drift_share is not None:
        made.gauge("homeostat_drift_share", model=model).set(verdict.drift_share)
    if verdict.errors is not None:
        made.gauge("homeostat_error", model=model).set(verdict.errors.current)
        made.gauge("homeostat_error_baseline", model=model).set(verdict.errors.baseline)
    if verdict.scores:
        made.forget("homeostat_drift_score", model=model)
        most = sorted(verdict.scores, key=lambda score: -score.value / (score.threshold or 1))
        for score in most[:SHOWN_COLUMNS]:
            made.gauge(
                "homeostat_drift_score", model=model, column=score.column, method=score.method
            ).set(score.value)


def decided(context: Context, decision: Decision) -> None:
    context.instruments.counter(
        "homeostat_decisions_total", model=context.model, action=decision.action.value
    ).inc()


def run_ended(context: Context, run: Run) -> None:
    model, made = context.model, context.instruments
    made.counter("homeostat_runs_total", model=model, outcome=run.stage.value).inc()
    if run.finished_at is not None:
        seconds = (run.finished_at - run.created_at).total_seconds()
        made.histogram("homeostat_run_seconds", model=model).observe(seconds)


def kept(context: Context, upkeep: Upkeep) -> None:
    """The log's tables as the last upkeep left them; set at every tick, for a restart."""
    if upkeep.result is None or upkeep.done_at is None:
        return
    model, made, result = context.model, context.instruments, upkeep.result
    made.gauge("homeostat_journal_table_bytes", model=model).set(result.bytes)
    made.gauge("homeostat_journal_files", model=model).set(result.files)
    made.gauge("homeostat_journal_rows", model=model).set(result.rows)
    made.gauge("homeostat_last_upkeep_timestamp_seconds", model=model).set(
        upkeep.done_at.timestamp()
    )


def standing(context: Context, rollout: Rollout | None, active: bool, paused: bool) -> None:
    """What holds now, set at every tick, so that it is right after a restart too."""
    model, made = context.model, context.instruments
    made.gauge("homeostat_run_active", model=model).set(active)
    made.gauge("homeostat_paused", model=model).set(paused)
    if rollout is not None:
        version = rollout.champion.version
        if version.isdigit():
            made.gauge("homeostat_champion_version", model=model).set(int(version))
        made.gauge("homeostat_last_promotion_timestamp_seconds", model=model).set(
            rollout.since.timestamp()
        )
        for kind in TrialKind:
            trial = rollout.trial if rollout.trial and rollout.trial.kind is kind else None
            share = made.gauge("homeostat_trial_share", model=model, kind=kind.value)
            share.set(trial.share if trial else 0.0)
