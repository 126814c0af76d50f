"""What the loop does: checks, retraining, releases, and its own health."""

from __future__ import annotations

from typing import Any

from dashboards.panels import Query, bars, chart, states
from dashboards.promql import RANGE, increase, mean, newest, quantile, rate


def drift() -> list[Any]:
    scores = f"topk(10, {newest('homeostat_drift_score', by='column, method')})"
    labelled = newest("homeostat_window_labelled_rows")
    return [
        chart(
            "Share of drifted columns",
            "Of each check. The line is the default of `monitor.drift_share`.",
            "percentunit",
            Query(newest("homeostat_drift_share"), "drifted"),
            highest=1,
            limit=0.5,
        ),
        bars(
            "Columns that drifted most",
            "Scores of the last check, each in the definition of its method.",
            "none",
            Query(scores, "{{column}} ({{method}})"),
        ),
        chart(
            "Error against what was promised",
            "Error on labelled rows of each check, and what the version showed at its gate.",
            "none",
            Query(newest("homeostat_error"), "error"),
            Query(newest("homeostat_error_baseline"), "promised"),
            colors={"error": "orange", "promised": "green"},
        ),
        bars(
            "Checks by verdict",
            "Checks in the time shown, by what they found.",
            "none",
            Query(f"{increase('homeostat_checks_total', by='verdict')} > 0", "{{verdict}}"),
        ),
        chart(
            "Rows and labels of the window",
            "Rows each check looked at and, of them, those with a matured label.",
            "none",
            Query(newest("homeostat_window_rows"), "rows"),
            Query(labelled, "labelled"),
        ),
        chart(
            "Labelled share",
            "Share of the window's rows with a matured label: without labels nobody can tell "
            "whether a shift does harm.",
            "percentunit",
            Query(f"{labelled} / ({newest('homeostat_window_rows')} > 0)", "labelled"),
            highest=1,
        ),
    ]


def releases() -> list[Any]:
    return [
        states(
            "Version that serves",
            "As the rollout record says. The blue marks on every chart are its changes.",
            "none",
            Query(newest("homeostat_champion_version"), "champion"),
            size=(12, 6),
        ),
        states(
            "Retraining under way",
            "From the decision to its outcome.",
            "none",
            Query(newest("homeostat_run_active"), "run"),
            size=(12, 6),
            words={"0": "none", "1": "under way"},
        ),
        bars(
            "Runs by outcome",
            "Retraining runs that ended in the time shown.",
            "none",
            Query(increase("homeostat_runs_total", by="outcome"), "{{outcome}}"),
        ),
        bars(
            "Decisions by action",
            "What followed from the verdicts in the time shown.",
            "none",
            Query(increase("homeostat_decisions_total", by="action"), "{{action}}"),
        ),
        chart(
            "Time of a run",
            "From decision to outcome, the mean over the time shown.",
            "s",
            Query(mean("homeostat_run_seconds", RANGE), "mean"),
        ),
        chart(
            "Time of the last load",
            "From the cache to a warmed-up model, by server.",
            "s",
            Query(newest("homeostat_model_load_seconds", by="instance"), "{{instance}}"),
        ),
        chart(
            "Versions that would not load",
            "Could not be fetched, verified or loaded. The server goes on with the one it has.",
            "none",
            Query(increase("homeostat_version_errors_total"), "versions"),
        ),
        chart(
            "Share on trial",
            "What the version on trial gets of the requests: to answer them (canary, ab), or a "
            "copy (shadow). 0: none is on trial.",
            "percentunit",
            Query(newest("homeostat_trial_share", by="kind"), "{{kind}}"),
            highest=1,
        ),
    ]


def health() -> list[Any]:
    away = newest("homeostat_waiting_for", by="what")
    return [
        states(
            "Waits for",
            "What is away, and since when. The loop goes on by itself when it is back.",
            "none",
            Query(away, "{{what}}"),
            words={"0": "there", "1": "away"},
        ),
        chart(
            "Webhook attempts",
            "By outcome. Failed ones are tried again for about three days, then they are dead.",
            "ops",
            Query(rate("homeostat_deliveries_total", by="outcome"), "{{outcome}}"),
            colors={"delivered": "green", "failed": "orange", "dead": "red"},
        ),
        chart(
            "Oldest alert not delivered",
            "Age of the oldest event whose delivery waits.",
            "s",
            Query(newest("homeostat_outbox_oldest_seconds"), "oldest"),
        ),
        chart(
            "Time of a check",
            "Mean and p95 over the time shown, its process included.",
            "s",
            Query(mean("homeostat_check_seconds", RANGE), "mean"),
            Query(quantile(0.95, "homeostat_check_seconds", RANGE), "p95"),
        ),
        chart(
            "Rows quarantined",
            "Rows put aside as data bugs, in the time shown.",
            "none",
            Query(increase("homeostat_quarantined_rows_total"), "rows"),
        ),
        chart(
            "Epoch served",
            "Epoch of the rollout that each server serves. They should agree within seconds.",
            "none",
            Query(newest("homeostat_rollout_epoch", by="instance"), "{{instance}}"),
            lowest=None,
        ),
    ]


def batch_runs() -> list[Any]:
    return [
        bars(
            "Batch runs",
            "Runs of `[[score]]` in the time shown, by how they ended.",
            "none",
            Query(increase("homeostat_score_runs_total", by="job, result"), "{{job}}: {{result}}"),
        ),
        chart(
            "Rows of the last batch run",
            "By job.",
            "none",
            Query(newest("homeostat_score_rows", by="job"), "{{job}}"),
        ),
        chart(
            "Share of rows with an answer",
            "Of the last batch run. The others are in the run's bad_rows.csv.",
            "percentunit",
            Query(newest("homeostat_score_answered_ratio", by="job"), "{{job}}"),
            highest=1,
        ),
        chart(
            "Time of the last batch run",
            "What its parts took together.",
            "s",
            Query(newest("homeostat_score_seconds", by="job"), "{{job}}"),
            size=(12, 6),
        ),
        chart(
            "Age of the last batch run",
            "Since the time it was due.",
            "s",
            Query(
                f"time() - {newest('homeostat_last_score_timestamp_seconds', by='job')}", "{{job}}"
            ),
            size=(12, 6),
        ),
    ]
