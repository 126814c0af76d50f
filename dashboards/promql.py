"""The few shapes of PromQL that the panels are made of, for the model that is looked at."""

from __future__ import annotations

# Grafana chooses windows: one that always spans a few scrapes, and the whole time shown.
RATE = "$__rate_interval"
RANGE = "$__range"
MODEL = 'model="$model"'

REQUESTS = "homeostat_requests_total"
HARM = 'verdict=~"data_bug|harmful_shift|concept_drift"'


def of_model(metric: str, *matchers: str) -> str:
    return f"{metric}{{{','.join((MODEL, *matchers))}}}"


def rate(metric: str, *matchers: str, by: str = "") -> str:
    return _sum(f"rate({of_model(metric, *matchers)}[{RATE}])", by)


def increase(metric: str, *matchers: str, by: str = "") -> str:
    """Over the whole time shown. Counters begin at zero, or their first step would not count."""
    return _sum(f"increase({of_model(metric, *matchers)}[{RANGE}])", by)


def quantile(share: float, histogram: str, window: str = RATE) -> str:
    buckets = f"rate({of_model(histogram + '_bucket')}[{window}])"
    # the comparison drops the NaN of a time without observations
    return f"histogram_quantile({share}, sum by (le) ({buckets})) >= 0"


def mean(histogram: str, window: str = RATE) -> str:
    total = f"sum(rate({of_model(histogram + '_sum')}[{window}]))"
    return f"{total} / (sum(rate({of_model(histogram + '_count')}[{window}])) > 0)"


def newest(metric: str, *matchers: str, by: str = "") -> str:
    """One number, should two processes show it for a moment."""
    expression = of_model(metric, *matchers)
    return f"max by ({by}) ({expression})" if by else f"max({expression})"


def age(metric: str) -> str:
    """Seconds since a timestamp; nothing where there was none."""
    return f"time() - ({newest(metric)} > 0)"


def _sum(expression: str, by: str) -> str:
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"
