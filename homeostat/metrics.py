"""Every Prometheus metric is declared once. Instruments are made on a registry passed in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from homeostat.metric import Metric, Owner
from homeostat.metrics_of_the_loop import LOOP
from homeostat.metrics_of_the_server import SERVER

METRICS: tuple[Metric, ...] = (*SERVER, *LOOP)

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
