"""Every Prometheus metric that the loop shows."""

from __future__ import annotations

from homeostat.metric import Metric
from homeostat.records import Action, Stage, TrialKind, VerdictKind

JOB = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)

LOOP: tuple[Metric, ...] = (
    # the prediction log
    Metric("homeostat_journal_table_bytes", "gauge", "loop", "Size of the journal's tables"),
    Metric("homeostat_journal_files", "gauge", "loop", "Files of the table of predictions"),
    Metric("homeostat_journal_rows", "gauge", "loop", "Rows of the table of predictions"),
    Metric(
        "homeostat_last_upkeep_timestamp_seconds",
        "gauge",
        "loop",
        "When the tables were last compacted and old rows deleted",
    ),
    # batch scoring on a schedule
    Metric(
        "homeostat_score_runs_total",
        "counter",
        "loop",
        "Scheduled batch runs by how they ended: answered, some_bad, failed",
        ("model", "job", "result"),
    ),
    Metric(
        "homeostat_score_rows",
        "gauge",
        "loop",
        "Rows of the last scheduled batch run",
        ("model", "job"),
    ),
    Metric(
        "homeostat_score_answered_ratio",
        "gauge",
        "loop",
        "Share of its rows that have an answer",
        ("model", "job"),
    ),
    Metric(
        "homeostat_score_seconds",
        "gauge",
        "loop",
        "Time its parts took together",
        ("model", "job"),
    ),
    Metric(
        "homeostat_last_score_timestamp_seconds",
        "gauge",
        "loop",
        "When it was due",
        ("model", "job"),
    ),
    # monitor
    Metric(
        "homeostat_checks_total",
        "counter",
        "loop",
        "Checks by verdict",
        ("model", "verdict"),
        values=tuple(VerdictKind),
    ),
    Metric("homeostat_check_seconds", "histogram", "loop", "Time of one check", buckets=JOB),
    Metric("homeostat_last_check_timestamp_seconds", "gauge", "loop", "When the last check ended"),
    Metric("homeostat_drift_share", "gauge", "loop", "Share of drifted columns, last check"),
    Metric(
        "homeostat_drift_score",
        "gauge",
        "loop",
        "Drift of the columns that drifted most, last check",
        ("model", "column", "method"),
    ),
    Metric("homeostat_window_rows", "gauge", "loop", "Rows of the last check's window"),
    Metric("homeostat_window_labelled_rows", "gauge", "loop", "Of them, with a matured label"),
    Metric("homeostat_error", "gauge", "loop", "Error on labelled rows, last check"),
    Metric("homeostat_error_baseline", "gauge", "loop", "What the version promised"),
    Metric("homeostat_quarantined_rows_total", "counter", "loop", "Rows put aside as data bugs"),
    # retrain
    Metric(
        "homeostat_decisions_total",
        "counter",
        "loop",
        "Decisions by action",
        ("model", "action"),
        values=tuple(Action),
    ),
    Metric(
        "homeostat_runs_total",
        "counter",
        "loop",
        "Retraining runs ended",
        ("model", "outcome"),
        values=tuple(stage for stage in Stage if stage.final),
    ),
    Metric("homeostat_run_active", "gauge", "loop", "1 while a retraining run is under way"),
    Metric("homeostat_run_seconds", "histogram", "loop", "From decision to outcome", buckets=JOB),
    Metric("homeostat_champion_version", "gauge", "loop", "Number of the version that serves"),
    Metric("homeostat_last_promotion_timestamp_seconds", "gauge", "loop", "When it was promoted"),
    Metric(
        "homeostat_trial_share",
        "gauge",
        "loop",
        "Share of the requests that the version on trial gets; 0: none is",
        ("model", "kind"),
        values=tuple(TrialKind),
    ),
    Metric("homeostat_paused", "gauge", "loop", "1 while the loop is paused"),
    # alerts
    Metric(
        "homeostat_deliveries_total",
        "counter",
        "loop",
        "Webhook attempts",
        ("model", "outcome"),
        values=("delivered", "failed", "dead"),
    ),
    Metric("homeostat_outbox_waiting", "gauge", "loop", "Deliveries not made yet"),
    Metric("homeostat_outbox_oldest_seconds", "gauge", "loop", "Age of the oldest of them"),
    Metric("homeostat_waiting_for", "gauge", "loop", "1 for what is away", ("model", "what")),
)
