"""Alert rules for Prometheus: who should get up when the platform cannot help itself.

Drift, retraining and promotion are told by the platform's own webhooks; these rules watch the
platform, and the harm it has not undone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

OBJECTIVE = 0.999  # share of requests that do not end in a 5xx
WINDOWS = ("5m", "30m", "1h", "6h")
ERROR_RATIO = "model:homeostat_error_ratio:rate"
LEAST_TRAFFIC = "model:homeostat_requests:rate5m > 0.1"


@dataclass(frozen=True, kw_only=True)
class Recording:
    record: str
    expr: str


@dataclass(frozen=True, kw_only=True)
class Alert:
    name: str
    expr: str
    wait: str  # how long it must hold
    severity: str  # page: now; ticket: in working hours
    summary: str
    runbook: str


def recordings() -> tuple[Recording, ...]:
    requests = "sum by (model) (rate(homeostat_requests_total[5m]))"
    return (
        Recording(record="model:homeostat_requests:rate5m", expr=requests),
        *(Recording(record=ERROR_RATIO + window, expr=_error_ratio(window)) for window in WINDOWS),
    )


ALERTS: tuple[Alert, ...] = (
    Alert(
        name="HomeostatTargetDown",
        expr='up{job="homeostat"} == 0',
        wait="2m",
        severity="page",
        summary="{{ $labels.instance }} does not answer Prometheus.",
        runbook="A server or the loop is down, or its address changed. Look at `homeostat status` "
        "and at the process's log in the project's home folder; `homeostat up` starts both.",
    ),
    Alert(
        name="HomeostatNothingServes",
        expr="absent(homeostat_model_info)",
        wait="5m",
        severity="page",
        summary="No server serves any model.",
        runbook="Either no server is up (see HomeostatTargetDown), or none has a champion yet: "
        "`homeostat status` says which version should serve, the server's log why it does not.",
    ),
    Alert(
        name="HomeostatErrorBurnFast",
        expr=(
            f"({ERROR_RATIO}1h > {14.4 * (1 - OBJECTIVE):.4f} and "
            f"{ERROR_RATIO}5m > {14.4 * (1 - OBJECTIVE):.4f}) and {LEAST_TRAFFIC}"
        ),
        wait="2m",
        severity="page",
        summary="{{ $labels.model }}: {{ $value | humanizePercentage }} of requests end in a 5xx.",
        runbook="At this rate two days' share of a month's allowed errors is gone in an hour. Look "
        "at the panel Requests by status: 503 is overload (more servers, or a larger "
        "serving.max_queued_rows), 500 is the model (`homeostat rollback` if it is new).",
    ),
    Alert(
        name="HomeostatErrorBurnSlow",
        expr=(
            f"({ERROR_RATIO}6h > {6 * (1 - OBJECTIVE):.4f} and "
            f"{ERROR_RATIO}30m > {6 * (1 - OBJECTIVE):.4f}) and {LEAST_TRAFFIC}"
        ),
        wait="15m",
        severity="ticket",
        summary="{{ $labels.model }}: {{ $value | humanizePercentage }} of requests end in a 5xx.",
        runbook="As HomeostatErrorBurnFast, slower.",
    ),
    Alert(
        name="HomeostatChecksNotRunning",
        expr="time() - max by (model) (homeostat_last_check_timestamp_seconds > 0) > 3600",
        wait="5m",
        severity="ticket",
        summary="{{ $labels.model }}: the last check ended "
        "{{ $value | humanizeDuration }} ago. Drift would go unnoticed.",
        runbook="Is the loop up, and what does `homeostat status` say it waits for? Where "
        "monitor.every is more than half an hour, raise this rule's limit.",
    ),
    Alert(
        name="HomeostatJournalLag",
        expr="max by (model, instance) (homeostat_journal_lag_seconds) > 300",
        wait="5m",
        severity="ticket",
        summary="{{ $labels.model }} on {{ $labels.instance }}: the oldest row waits "
        "{{ $value | humanizeDuration }} for its commit.",
        runbook="The table's storage is away or slow; rows are kept in the spool on local disk "
        "and stored when it is back. See the server's log, and the disk's free space.",
    ),
    Alert(
        name="HomeostatRowsDropped",
        expr="sum by (model) (increase(homeostat_journal_dropped_total[10m]) or "
        "increase(homeostat_journal_rejected_total[10m])) > 0",
        wait="0m",
        severity="ticket",
        summary="{{ $labels.model }}: {{ $value | humanize }} answered rows are not in the log.",
        runbook="The spool is full or its disk does not take rows (journal.when_full is drop), or "
        "rows fit no table; see the server's log. What fitted no table lies in the spool's folder, "
        "under rejected/.",
    ),
    Alert(
        name="HomeostatOutboxStuck",
        expr="max by (model) (homeostat_outbox_oldest_seconds) > 1800",
        wait="5m",
        severity="ticket",
        summary="{{ $labels.model }}: an alert has waited "
        "{{ $value | humanizeDuration }} for its receiver.",
        runbook="The receiver is away or refuses; the loop's log says which, and what it answered. "
        "Deliveries are tried for about three days, then given up.",
    ),
    Alert(
        name="HomeostatAlertsLost",
        expr='sum by (model) (increase(homeostat_deliveries_total{outcome="dead"}[1h])) > 0',
        wait="0m",
        severity="ticket",
        summary="{{ $labels.model }}: alerts were given up undelivered.",
        runbook="Their receiver refused for days, answered 410 Gone, or was taken out of the "
        "settings. The loop's log names each; `homeostat status` shows what happened meanwhile.",
    ),
    Alert(
        name="HomeostatErrorAboveBaseline",
        expr=(
            "(max by (model) (homeostat_error) > 1.5 * max by (model) (homeostat_error_baseline)) "
            "and max by (model) (homeostat_window_labelled_rows) >= 100"
        ),
        wait="1h",
        severity="ticket",
        summary="{{ $labels.model }}: the error on labelled rows is {{ $value | humanize }}, "
        "well above what the version promised, for an hour.",
        runbook="The loop has not undone it: is it paused, in mode observe or propose, out of "
        "budget, or does its gate turn candidates away? `homeostat status` tells.",
    ),
    Alert(
        name="HomeostatWaiting",
        expr="max by (model, what) (homeostat_waiting_for) == 1",
        wait="15m",
        severity="ticket",
        summary="{{ $labels.model }}: the loop waits for {{ $labels.what }}.",
        runbook="It goes on by itself when that is back; servers go on answering meanwhile.",
    ),
    Alert(
        name="HomeostatPausedLong",
        expr="max by (model) (homeostat_paused) == 1",
        wait="24h",
        severity="ticket",
        summary="{{ $labels.model }}: the loop has been paused for a day.",
        runbook="`homeostat status` says by whom and why; `homeostat resume` lets it act again.",
    ),
)


def as_yaml() -> str:
    """The rules file. JSON's strings are YAML's too, so nothing needs a library."""
    lines = [
        "# Made by `python -m dashboards build`; do not edit.",
        "groups:",
        "  - name: homeostat-recordings",
        "    rules:",
    ]
    for recording in recordings():
        lines += [f"      - record: {recording.record}", f"        expr: {_text(recording.expr)}"]
    lines += ["  - name: homeostat-alerts", "    rules:"]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {_text(alert.expr)}",
            f"        for: {alert.wait}",
            "        labels:",
            f"          severity: {alert.severity}",
            "        annotations:",
            f"          summary: {_text(alert.summary)}",
            f"          runbook: {_text(alert.runbook)}",
        ]
    return "\n".join(lines) + "\n"


def _error_ratio(window: str) -> str:
    requests = f"sum by (model) (rate(homeostat_requests_total[{window}]))"
    errors = f'sum by (model) (rate(homeostat_requests_total{{code=~"5.."}}[{window}]))'
    return f"({errors} or 0 * {requests}) / ({requests} > 0)"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
