"""What the servers do: requests, batches, and the log they write."""

from __future__ import annotations

from typing import Any

from dashboards.panels import SLOW_COLORS, Query, chart
from dashboards.promql import RANGE, RATE, REQUESTS, mean, newest, of_model, quantile, rate

UNCERTAIN = (
    f"{rate('homeostat_uncertain_answers_total')} / ({rate('homeostat_confidence_count')} > 0)"
)


def traffic() -> list[Any]:
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
            "Mean time of a request and, of it, in the queue and the model's for one batch. The "
            "rest is parsing, the journal and writing.",
            "s",
            Query(mean(latency), "request"),
            Query(mean("homeostat_queue_seconds"), "queue"),
            Query(mean("homeostat_compute_seconds"), "model"),
        ),
        chart(
            "Errors by kind",
            "Requests refused or failed a second, by the kind of problem that their answer names.",
            "reqps",
            Query(rate("homeostat_errors_total", by="kind"), "{{kind}}"),
            stacked=True,
        ),
        chart(
            "Rows by version",
            "Rows predicted a second by the version that answered.",
            "rowsps",
            Query(rate("homeostat_rows_total", by="version"), "version {{version}}"),
            stacked=True,
        ),
        chart(
            "Rows by role",
            "What the version was to the rows: the champion, a challenger on trial, a shadow whose "
            "answers nobody gets, the previous one asked by name, a fallback for one that fails.",
            "rowsps",
            Query(rate("homeostat_role_rows_total", by="role"), "{{role}}"),
        ),
        chart(
            "Fallbacks",
            "Requests answered by another version, or with `serving.default_answer`, since the one "
            "that should have fails; and rows that a shadow was not given.",
            "cps",
            Query(rate("homeostat_fallback_answers_total", by="by"), "by {{by}}"),
            Query(rate("homeostat_shadow_dropped_rows_total"), "shadow rows dropped"),
        ),
        chart(
            "Circuit breakers",
            "Of each version in memory: 0 it is asked, 1 it is being tried, 2 it fails and is not "
            "asked while others can answer.",
            "none",
            Query(
                f"max by (version) ({of_model('homeostat_breaker_state')})", "version {{version}}"
            ),
        ),
        chart(
            "Answers by class",
            "Answers a second by predicted class, the most frequent ones.",
            "cps",
            Query(rate("homeostat_predictions_total", by="class"), "{{class}}"),
            stacked=True,
        ),
        chart(
            "Confidence",
            "The largest probability of an answer, and the share of answers below "
            "`serving.low_confidence`.",
            "percentunit",
            Query(mean("homeostat_confidence"), "mean"),
            Query(UNCERTAIN, "uncertain"),
        ),
        chart(
            "Labels",
            "Labels taken a second: what the error on labelled rows rests on.",
            "cps",
            Query(rate("homeostat_labels_total"), "labels"),
        ),
    ]


_MEAN = of_model("homeostat_input_mean")
_DEVIATION = of_model("homeostat_input_deviation")
MOVED = f"topk(5, abs(delta({_MEAN}[{RANGE}])) / ({_DEVIATION} > 0))"


def processes() -> list[Any]:
    return [
        chart(
            "Workers",
            "Processes that share the port, and those of them that have every model loaded. Fewer "
            "ready ones than workers: the server says it is not ready. Traces are dropped while "
            "their collector is away (`serving.traces`).",
            "none",
            Query("sum(homeostat_workers)", "workers"),
            Query("sum(homeostat_workers_ready)", "ready"),
            Query(f"sum(increase(homeostat_worker_deaths_total[{RATE}]))", "deaths"),
            Query(
                f'sum(increase(homeostat_traces_total{{outcome="dropped"}}[{RATE}]))',
                "traces dropped",
            ),
            colors={"deaths": "red"},
        ),
        chart(
            "Connections",
            "Open ones, and requests under way.",
            "none",
            Query("sum(homeostat_connections)", "connections"),
            Query("sum(homeostat_in_flight_requests)", "in flight"),
        ),
        chart(
            "Processor",
            "Of the server's processes together; 1 is one core.",
            "none",
            Query(
                f"sum(rate(process_cpu_seconds_total[{RATE}]) and on (instance) homeostat_workers)",
                "cores",
            ),
            Query("max by (gpu) (homeostat_gpu_utilisation_ratio)", "GPU {{gpu}}"),
        ),
        chart(
            "Versions in memory",
            "The one that serves, the one before, one on trial.",
            "none",
            Query(newest("homeostat_versions_live"), "versions"),
        ),
        chart(
            "Memory",
            "Of the server's processes together, and of each GPU.",
            "bytes",
            Query("sum(process_resident_memory_bytes and on (instance) homeostat_workers)", "RAM"),
            Query("max by (gpu) (homeostat_gpu_memory_bytes)", "GPU {{gpu}}"),
        ),
        chart(
            "Inputs that moved",
            "How far the mean of the last five minutes moved in the time shown, in standard "
            "deviations: the five that moved most. The loop's checks decide; this is for eyes.",
            "none",
            Query(MOVED, "{{feature}}"),
        ),
        chart(
            "Keys",
            "Different keys that callers sent since the server started (an estimate).",
            "none",
            Query(f"sum({of_model('homeostat_unique_keys')})", "keys"),
        ),
    ]


def journal() -> list[Any]:
    return [
        chart(
            "Rows a batch",
            "How well requests are batched: rows the model gets at once.",
            "none",
            Query(mean("homeostat_batch_rows"), "mean"),
            Query(quantile(0.95, "homeostat_batch_rows"), "p95"),
        ),
        chart(
            "Computed once",
            "Requests found in the cache, not found there, and answered with what an equal request "
            "in flight was.",
            "reqps",
            Query(rate("homeostat_cache_hits_total"), "cached"),
            Query(rate("homeostat_cache_misses_total"), "not cached"),
            Query(rate("homeostat_coalesced_total"), "coalesced"),
        ),
        chart(
            "Cache",
            "Bytes of the cache in use, up to `serving.cache`.",
            "bytes",
            Query(f"sum({of_model('homeostat_cache_bytes')})", "in use"),
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
