"""The dashboard "Homeostat overview": one model, from the request to the release."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import dashboard as frame
from grafana_foundation_sdk.models import dashboard as model

from dashboards.panels import BAD, DATASOURCE, SLOW_COLORS, WARN, Query, bars, chart, states, tile
from dashboards.promql import RANGE, age, increase, mean, newest, of_model, quantile, rate
from dashboards.provisioned_files import TAG

UID = "homeostat-overview"

REQUESTS = "homeostat_requests_total"
SERVER_ERRORS = 'code=~"5.."'
HARM = 'verdict=~"data_bug|harmful_shift|concept_drift"'


def overview() -> Any:
    dashboard = (
        frame.Dashboard("Homeostat overview")
        .uid(UID)
        .description("One model: traffic, drift, retraining, releases, and the loop's own health.")
        .tags(["homeostat", TAG])
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .refresh("30s")
        .with_variable(_datasource())
        .with_variable(_model())
    )
    for annotation in _annotations():
        dashboard.annotation(annotation)
    for title, panels in (
        ("Now", _now()),
        ("Traffic and latency", _traffic()),
        ("Batches and journal", _journal()),
        ("Drift and data quality", _drift()),
        ("Retraining and releases", _releases()),
        ("The loop's health", _loop()),
    ):
        dashboard.with_row(frame.Row(title))
        for panel in panels:
            dashboard.with_panel(panel)
    return dashboard


def _datasource() -> Any:
    return frame.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _model() -> Any:
    # a server without a loop, or a loop before its first server, still has a name here
    query = 'label_values({__name__=~"homeostat_(model_info|paused)"}, model)'
    return (
        frame.QueryVariable("model")
        .label("Model")
        .datasource(DATASOURCE)
        .query({"query": query, "refId": "model"})
        .definition(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )


def _annotations() -> list[Any]:
    changed = f"changes({of_model('homeostat_champion_version')}[2m]) > 0"
    harm = f"sum by (verdict) (increase({of_model('homeostat_checks_total', HARM)}[2m])) > 0"
    return [
        _annotation("Versions", "blue", changed, "Another version serves", "{{model}}"),
        _annotation("Harm", "red", harm, "A check found harm", "{{verdict}}"),
    ]


def _annotation(name: str, color: str, expr: str, title: str, text: str) -> Any:
    return (
        frame.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(color)
        .expr(expr)
        .step("60s")
        .title_format(title)
        .text_format(text)
    )


def _now() -> list[Any]:
    errors, answered = rate(REQUESTS, SERVER_ERRORS), rate(REQUESTS)
    against = f"{newest('homeostat_error')} / ({newest('homeostat_error_baseline')} > 0)"
    return [
        tile(
            "Requests",
            "Answered a second, whatever the answer.",
            f"{answered} or vector(0)",
            "reqps",
            spark=True,
        ),
        tile(
            "Server errors",
            "Share of requests answered with a 5xx. A caller's mistake (4xx) is not one.",
            f"({errors} or vector(0)) / ({answered} > 0)",
            "percentunit",
            limits={0.001: WARN, 0.01: BAD},
            empty="No traffic",
            decimals=2,
        ),
        tile(
            "p95 latency",
            "From the last byte of a request to its answer; 95% are faster.",
            quantile(0.95, "homeostat_request_seconds"),
            "s",
            empty="No traffic",
        ),
        tile(
            "Servers",
            "Processes that serve this model right now.",
            f"sum({of_model('homeostat_model_info')}) or vector(0)",
            "none",
            limits={0: BAD, 1: "green"},
        ),
        tile(
            "Champion",
            "The version that serves, as the rollout record says.",
            newest("homeostat_champion_version"),
            "none",
            empty="None yet",
        ),
        tile(
            "Since promotion",
            "Time since the version that serves was promoted.",
            age("homeostat_last_promotion_timestamp_seconds"),
            "s",
            empty="None yet",
        ),
        tile(
            "Drifted columns",
            "Share of the columns that drifted, last check. A verdict weighs more than this.",
            newest("homeostat_drift_share"),
            "percentunit",
            limits={0.3: WARN, 0.5: BAD},
            empty="No check yet",
        ),
        tile(
            "Error against promise",
            "Error on labelled rows of the last check, as a share of what the version's gate "
            "measured: 100% is as promised.",
            against,
            "percentunit",
            limits={1.25: WARN, 2: BAD},
            empty="No labels yet",
        ),
        tile(
            "Harmful checks",
            "Checks in the time shown that found a data bug, harmful shift or concept drift.",
            f"{increase('homeostat_checks_total', HARM)} or vector(0)",
            "none",
            limits={0.5: WARN},
            decimals=0,
        ),
        tile(
            "Since last check",
            "Time since a check ended. Far above `monitor.every`: the loop does not run.",
            age("homeostat_last_check_timestamp_seconds"),
            "s",
            limits={3600: WARN, 10800: BAD},
            empty="No check yet",
        ),
        tile(
            "Loop",
            "Paused: it goes on checking, but neither trains nor promotes.",
            newest("homeostat_paused"),
            "none",
            limits={1: WARN},
            words={"0": "Running", "1": "Paused"},
            empty="Away",
        ),
        tile(
            "Alerts waiting",
            "Webhook deliveries not made yet, because they are new or their receiver is away.",
            newest("homeostat_outbox_waiting"),
            "none",
            limits={1: WARN, 20: BAD},
            empty="No loop",
        ),
    ]


def _traffic() -> list[Any]:
    latency = "homeostat_request_seconds"
    return [
        chart(
            "Requests by status",
            "Answers a second by HTTP status.",
            "reqps",
            Query(rate(REQUESTS, by="code"), "{{code}}"),
        ),
        chart(
            "Latency",
            "From the last byte of a request to its answer (homeostat_request_seconds).",
            "s",
            *(Query(quantile(float(f"0.{name[1:]}"), latency), name) for name in SLOW_COLORS),
            colors=SLOW_COLORS,
        ),
        chart(
            "Where the time goes",
            "Mean time of a request and, of it, the model's for one batch. The rest is waiting, "
            "parsing and the journal.",
            "s",
            Query(mean(latency), "request"),
            Query(mean("homeostat_compute_seconds"), "model"),
        ),
        chart(
            "Rows by version",
            "Rows predicted a second by the version that answered.",
            "rowsps",
            Query(rate("homeostat_rows_total", by="version"), "version {{version}}"),
            stacked=True,
        ),
        chart(
            "Answers by class",
            "Answers a second by predicted class, the most frequent ones.",
            "cps",
            Query(rate("homeostat_predictions_total", by="class"), "{{class}}"),
            stacked=True,
        ),
        chart(
            "Labels",
            "Labels taken a second: what the error on labelled rows rests on.",
            "cps",
            Query(rate("homeostat_labels_total"), "labels"),
        ),
    ]


def _journal() -> list[Any]:
    return [
        chart(
            "Rows a batch",
            "How well requests are batched: rows the model gets at once.",
            "none",
            Query(mean("homeostat_batch_rows"), "mean"),
            Query(quantile(0.95, "homeostat_batch_rows"), "p95"),
        ),
        chart(
            "Rows that wait",
            "Rows that wait for the model. Past `serving.max_queued_rows` the answer is 503.",
            "none",
            Query(f"sum by (instance) ({of_model('homeostat_queued_rows')})", "{{instance}}"),
        ),
        chart(
            "Into and out of the spool",
            "Rows given to the journal, rows found in its spool after a restart, and rows "
            "committed to its table, a second.",
            "rowsps",
            Query(rate("homeostat_journal_received_total"), "received"),
            Query(rate("homeostat_journal_recovered_total"), "recovered"),
            Query(rate("homeostat_journal_stored_total"), "stored"),
        ),
        chart(
            "Not logged",
            "Rows answered and not in the log: dropped for want of room (`journal.when_full`), "
            "rejected because they fit no table, left out by `journal.sample`.",
            "rowsps",
            Query(rate("homeostat_journal_dropped_total"), "dropped"),
            Query(rate("homeostat_journal_rejected_total"), "rejected"),
            Query(rate("homeostat_journal_sampled_out_total"), "sampled out"),
            colors={"dropped": "red", "rejected": "orange"},
        ),
        chart(
            "Rows that wait for a commit",
            "In the spool and in memory. With these, rows add up: received and recovered are "
            "stored, dropped, rejected, sampled out, or wait.",
            "none",
            Query(f"sum({of_model('homeostat_journal_waiting_rows')})", "rows"),
        ),
        chart(
            "Journal lag",
            "Age of the oldest row that waits for a commit. Normally below `journal.commit_every`.",
            "s",
            Query(newest("homeostat_journal_lag_seconds"), "lag"),
        ),
        chart(
            "Spool",
            "Bytes that wait for a commit, on local disk and in memory. Grows while the table's "
            "storage is away, up to `journal.spool` and `journal.memory`.",
            "bytes",
            Query(f"sum({of_model('homeostat_journal_spool_bytes')})", "on disk"),
            Query(f"sum({of_model('homeostat_journal_memory_bytes')})", "in memory"),
        ),
        chart(
            "Size of the log",
            "Of its tables after an upkeep; see `journal.keep` and `journal.keep_bytes`.",
            "bytes",
            Query(newest("homeostat_journal_table_bytes"), "tables"),
        ),
        chart(
            "Rows and files of the log",
            "Of the table of predictions, after the last upkeep, which puts small files together.",
            "none",
            Query(newest("homeostat_journal_rows"), "rows"),
            Query(newest("homeostat_journal_files"), "files"),
        ),
        chart(
            "Time since the last upkeep",
            "Normally below `journal.upkeep_every`.",
            "s",
            Query(f"time() - {newest('homeostat_last_upkeep_timestamp_seconds')}", "since"),
        ),
        chart(
            "Commits that failed",
            "Each is tried again; nothing is lost while the disk has room.",
            "ops",
            Query(rate("homeostat_journal_errors_total"), "failed"),
        ),
    ]


def _drift() -> list[Any]:
    scores = f"topk(10, max by (column, method) ({of_model('homeostat_drift_score')}))"
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


def _releases() -> list[Any]:
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
            Query(
                f"max by (instance) ({of_model('homeostat_model_load_seconds')})", "{{instance}}"
            ),
            size=(12, 6),
        ),
        chart(
            "Versions that would not load",
            "Could not be fetched, verified or loaded. The server goes on with the one it has.",
            "none",
            Query(increase("homeostat_version_errors_total"), "versions"),
            size=(12, 6),
        ),
    ]


def _loop() -> list[Any]:
    away = f"max by (what) ({of_model('homeostat_waiting_for')})"
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
            Query(f"max by (instance) ({of_model('homeostat_rollout_epoch')})", "{{instance}}"),
            lowest=None,
        ),
    ]
