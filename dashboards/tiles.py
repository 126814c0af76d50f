"""The first row of the overview: how things stand now, a number each."""

from __future__ import annotations

from typing import Any

from dashboards.panels import BAD, WARN, tile
from dashboards.promql import HARM, REQUESTS, age, increase, newest, of_model, quantile, rate

SERVER_ERRORS = 'code=~"5.."'


def now() -> list[Any]:
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
