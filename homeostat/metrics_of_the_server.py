"""Every Prometheus metric that the server shows."""

from __future__ import annotations

from homeostat.metric import Metric

LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)

SERVER: tuple[Metric, ...] = (
    # serving
    Metric(
        "homeostat_requests_total",
        "counter",
        "server",
        "Predictions answered or refused, and what names no model served here, by status",
        ("model", "code"),
    ),
    Metric("homeostat_rows_total", "counter", "server", "Rows predicted", ("model", "version")),
    Metric(
        "homeostat_request_seconds",
        "histogram",
        "server",
        "From the last byte of the request to the answer",
        buckets=LATENCY,
    ),
    Metric(
        "homeostat_compute_seconds",
        "histogram",
        "server",
        "The model's time for one batch",
        buckets=LATENCY,
    ),
    Metric(
        "homeostat_queue_seconds",
        "histogram",
        "server",
        "A request's wait for its batch",
        buckets=LATENCY,
    ),
    Metric("homeostat_batch_rows", "histogram", "server", "Rows of one batch", buckets=ROWS),
    Metric(
        "homeostat_errors_total",
        "counter",
        "server",
        "Predictions and labels refused or failed, and what names no model served here, by the "
        "kind of problem; not paths that are not there, nor methods that they do not take",
        ("model", "kind"),
    ),
    Metric("homeostat_queued_rows", "gauge", "server", "Rows that wait for the model"),
    Metric(
        "homeostat_role_rows_total",
        "counter",
        "server",
        "Rows by what the version was to them: champion, challenger, shadow, previous, fallback",
        ("model", "version", "role"),
    ),
    Metric(
        "homeostat_fallback_answers_total",
        "counter",
        "server",
        "Requests answered by another version, or with the default answer, since one fails",
        ("model", "by"),
        values=("version", "default"),
    ),
    Metric(
        "homeostat_breaker_state",
        "gauge",
        "server",
        "Of each version in memory: 0 asked, 1 being tried, 2 not asked since it fails",
        ("model", "version"),
        among="most",
    ),
    Metric(
        "homeostat_shadow_dropped_rows_total",
        "counter",
        "server",
        "Rows that a version in shadow did not get, or not log, since others came first",
    ),
    Metric("homeostat_cache_hits_total", "counter", "server", "Requests answered from the cache"),
    Metric("homeostat_cache_misses_total", "counter", "server", "Requests the cache did not hold"),
    Metric(
        "homeostat_coalesced_total",
        "counter",
        "server",
        "Requests answered with what an equal one in flight was",
    ),
    Metric("homeostat_cache_bytes", "gauge", "server", "Bytes of the cache in use"),
    Metric(
        "homeostat_predictions_total",
        "counter",
        "server",
        "Answers by class (the most frequent ones)",
        ("model", "class"),
    ),
    Metric(
        "homeostat_model_info",
        "gauge",
        "server",
        "1 for the version that serves",
        ("model", "version"),
        among="most",
    ),
    Metric(
        "homeostat_model_load_seconds", "gauge", "server", "Time the last load took", among="most"
    ),
    Metric(
        "homeostat_version_errors_total",
        "counter",
        "server",
        "Versions that could not be fetched, verified or loaded",
    ),
    Metric(
        "homeostat_rollout_epoch",
        "gauge",
        "server",
        "Epoch of the rollout being served",
        among="least",
    ),
    Metric("homeostat_versions_live", "gauge", "server", "Versions in memory", among="most"),
    Metric(
        "homeostat_confidence",
        "histogram",
        "server",
        "The largest probability of each answer",
        buckets=CONFIDENCE,
    ),
    Metric(
        "homeostat_uncertain_answers_total",
        "counter",
        "server",
        "Answers less sure than serving.low_confidence",
    ),
    Metric(
        "homeostat_input_mean",
        "gauge",
        "server",
        "Mean of an input over the last five minutes (the first 100 numbers of a model)",
        ("model", "feature"),
    ),
    Metric(
        "homeostat_input_deviation",
        "gauge",
        "server",
        "Standard deviation of an input over the last five minutes",
        ("model", "feature"),
    ),
    Metric(
        "homeostat_unique_keys",
        "gauge",
        "server",
        "Different keys that callers sent since the server started, within 1.6 % (one standard "
        "error)",
    ),
    # the server as a whole
    Metric("homeostat_connections", "gauge", "server", "Open connections", ()),
    Metric("homeostat_in_flight_requests", "gauge", "server", "Requests under way", ()),
    Metric("homeostat_workers", "gauge", "server", "Processes that share the port", ()),
    Metric("homeostat_workers_ready", "gauge", "server", "Of them, with all models loaded", ()),
    Metric(
        "homeostat_worker_deaths_total",
        "counter",
        "server",
        "Times a worker ended by itself and was replaced",
        ("worker",),
    ),
    Metric(
        "homeostat_traces_total",
        "counter",
        "server",
        "Traced requests that a collector took, or that were dropped (serving.traces)",
        ("outcome",),
        values=("sent", "dropped"),
    ),
    Metric(
        "homeostat_gpu_memory_bytes",
        "gauge",
        "server",
        "Memory in use of each GPU, by whomever (where pynvml is installed)",
        ("gpu",),
        among="most",
    ),
    Metric(
        "homeostat_gpu_utilisation_ratio",
        "gauge",
        "server",
        "Share of the last moments in which the GPU computed",
        ("gpu",),
        among="most",
    ),
    Metric("homeostat_labels_total", "counter", "server", "Labels taken", ("model",)),
    # the prediction log
    Metric("homeostat_journal_received_total", "counter", "server", "Rows given to the journal"),
    Metric(
        "homeostat_journal_recovered_total",
        "counter",
        "server",
        "Rows that an earlier process left in the spool, once they are read",
    ),
    Metric("homeostat_journal_stored_total", "counter", "server", "Rows committed to the table"),
    Metric(
        "homeostat_journal_dropped_total",
        "counter",
        "server",
        "Rows answered and not logged, for want of room",
    ),
    Metric(
        "homeostat_journal_rejected_total",
        "counter",
        "server",
        "Rows that fit no table, set aside in the spool's folder",
    ),
    Metric(
        "homeostat_journal_sampled_out_total",
        "counter",
        "server",
        "Rows not logged because of journal.sample",
    ),
    Metric(
        "homeostat_journal_waiting_rows",
        "gauge",
        "server",
        "Rows that wait for a commit: received + recovered = stored + dropped + rejected + "
        "sampled_out + waiting",
    ),
    Metric(
        "homeostat_journal_memory_bytes", "gauge", "server", "Bytes in memory waiting for the spool"
    ),
    Metric("homeostat_journal_spool_bytes", "gauge", "server", "Bytes waiting for a commit"),
    Metric(
        "homeostat_journal_lag_seconds",
        "gauge",
        "server",
        "Age of the oldest waiting row",
        among="most",
    ),
    Metric("homeostat_journal_errors_total", "counter", "server", "Commits that failed (retried)"),
)
