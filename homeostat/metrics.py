"""Every Prometheus metric, declared once. Instruments are made on a registry passed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from homeostat.records import Action, Stage, TrialKind, VerdictKind

LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
JOB = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)

Kind = Literal["counter", "gauge", "histogram"]
Owner = Literal["server", "loop"]
Among = Literal["sum", "most", "least"]


@dataclass(frozen=True)
class Metric:
    name: str
    kind: Kind
    owner: Owner  # the process whose /metrics shows it
    help: str
    labels: tuple[str, ...] = ("model",)
    buckets: tuple[float, ...] = ()
    values: tuple[str, ...] = ()  # of the last label, where they are few and known
    among: Among = "sum"  # what a gauge of several worker processes is together


METRICS: tuple[Metric, ...] = (
    # serving
    Metric("homeostat_requests_total", "counter", "server", "Requests answered", ("model", "code")),
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
        "Requests refused or failed, by the kind of problem",
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
    Metric("homeostat_in_flight_requests", "gauge", "server", "HTTP requests under way", ()),
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

Instrument = Counter | Gauge | Histogram
K = TypeVar("K", Counter, Gauge, Histogram)


class Instruments:
    """The instruments of one process: `instruments["homeostat_rows_total"]`."""

    def __init__(self, owner: Owner, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._made: Mapping[str, Instrument] = {
            metric.name: _make(metric, registry) for metric in METRICS if metric.owner == owner
        }

    def begin(self, model: str) -> None:
        """Show a model's counters at zero, as far as their labels are known.

        Prometheus takes a counter's first value for its start, so that the first data bug, or the
        first promotion, would otherwise not count as an increase.
        """
        for metric in METRICS:
            if metric.name not in self._made or metric.kind == "gauge":
                continue
            if metric.labels == ("model",):
                self._made[metric.name].labels(model)
            for value in metric.values if "model" in metric.labels else ():
                self._made[metric.name].labels(model, value)

    def counter(self, name: str, **labels: str) -> Counter:
        return self._labelled(name, Counter, labels)

    def gauge(self, name: str, **labels: str) -> Gauge:
        return self._labelled(name, Gauge, labels)

    def histogram(self, name: str, **labels: str) -> Histogram:
        return self._labelled(name, Histogram, labels)

    def forget(self, name: str, **labels: str) -> None:
        """Drop every series of a metric that has these labels (columns that drift no more)."""
        instrument = self._made[name]
        for values in list(instrument._metrics):
            have = dict(zip(instrument._labelnames, values, strict=True))
            if all(have[key] == value for key, value in labels.items()):
                instrument.remove(*values)

    def _labelled(self, name: str, kind: type[K], labels: dict[str, str]) -> K:
        instrument = self._made[name]
        if not isinstance(instrument, kind):
            raise TypeError(f"{name} is a {type(instrument).__name__}, not a {kind.__name__}")
        return instrument.labels(**labels) if labels else instrument


def _make(metric: Metric, registry: CollectorRegistry) -> Instrument:
    if metric.kind == "histogram":
        return Histogram(
            metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry
        )
    kind = Counter if metric.kind == "counter" else Gauge
    return kind(metric.name, metric.help, metric.labels, registry=registry)
