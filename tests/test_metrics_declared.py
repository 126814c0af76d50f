"""Every metric is declared once, well named, and made on the registry that is passed in."""

from __future__ import annotations

from collections import Counter

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from homeostat.metrics import METRICS, Instruments
from homeostat.records import VerdictKind

# Of the process, or of the machine, and of no model.
WHOLE = {
    "homeostat_connections": (),
    "homeostat_in_flight_requests": (),
    "homeostat_workers": (),
    "homeostat_workers_ready": (),
    "homeostat_worker_deaths_total": ("worker",),
    "homeostat_traces_total": ("outcome",),
    "homeostat_gpu_memory_bytes": ("gpu",),
    "homeostat_gpu_utilisation_ratio": ("gpu",),
}


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_a_metric_is_named_as_prometheus_asks(metric) -> None:  # type: ignore[no-untyped-def]
    """Counters end in _total, others do not; each knows its model; histograms have buckets."""
    assert metric.name.startswith("homeostat_")
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.labels == WHOLE.get(metric.name, metric.labels)
    assert metric.name in WHOLE or metric.labels[0] == "model"
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert metric.help
    assert not metric.help.endswith(".")


def test_no_name_is_taken_twice() -> None:
    """Not even in the form Prometheus stores it."""
    assert [n for n, c in Counter(m.name for m in METRICS).items() if c > 1] == []


@pytest.mark.parametrize("owner", ["server", "loop"])
def test_each_process_shows_its_own(owner) -> None:  # type: ignore[no-untyped-def]
    """And nothing of the other's; two registries do not know each other."""
    registry = CollectorRegistry()
    Instruments(owner, registry)
    Instruments(owner, CollectorRegistry())
    shown = {f.name for f in text_string_to_metric_families(generate_latest(registry).decode())}
    declared = {m.name.removesuffix("_total") for m in METRICS if m.owner == owner}
    assert {name.removesuffix("_total") for name in shown} == declared


def test_values_can_be_read_back() -> None:
    """A counter, a gauge and a histogram, with their labels."""
    registry = CollectorRegistry()
    instruments = Instruments("server", registry)
    instruments.counter("homeostat_requests_total", model="shop", code="200").inc(3)
    instruments.gauge("homeostat_queued_rows", model="shop").set(7)
    instruments.histogram("homeostat_request_seconds", model="shop").observe(0.003)
    value = registry.get_sample_value
    assert value("homeostat_requests_total", {"model": "shop", "code": "200"}) == 3
    assert value("homeostat_queued_rows", {"model": "shop"}) == 7
    assert value("homeostat_request_seconds_bucket", {"model": "shop", "le": "0.005"}) == 1
    assert value("homeostat_request_seconds_bucket", {"model": "shop", "le": "0.0025"}) == 0


def test_a_mistake_of_the_caller_is_told_at_once() -> None:
    """The wrong kind, another process's metric, a label that is none."""
    instruments = Instruments("server", CollectorRegistry())
    with pytest.raises(TypeError, match="homeostat_queued_rows is a Gauge, not a Counter"):
        instruments.counter("homeostat_queued_rows", model="shop")
    with pytest.raises(KeyError):
        instruments.gauge("homeostat_paused", model="shop")
    with pytest.raises(ValueError, match="label"):
        instruments.gauge("homeostat_queued_rows", colour="red")


def test_counters_begin_at_zero_and_gauges_do_not() -> None:
    """The first data bug counts as an increase; a share nobody measured is not shown as 0."""
    registry = CollectorRegistry()
    instruments = Instruments("loop", registry)
    instruments.begin("shop")
    instruments.begin("shop")
    value = registry.get_sample_value
    for kind in VerdictKind:
        assert value("homeostat_checks_total", {"model": "shop", "verdict": kind.value}) == 0
    assert value("homeostat_runs_total", {"model": "shop", "outcome": "promoted"}) == 0
    assert value("homeostat_runs_total", {"model": "shop", "outcome": "training"}) is None
    assert value("homeostat_quarantined_rows_total", {"model": "shop"}) == 0
    assert value("homeostat_check_seconds_count", {"model": "shop"}) == 0
    assert value("homeostat_drift_share", {"model": "shop"}) is None
    Instruments("server", CollectorRegistry()).begin("shop")


def test_what_no_longer_holds_is_forgotten() -> None:
    """Columns that drift no more leave the page; another model's stay."""
    registry = CollectorRegistry()
    instruments = Instruments("loop", registry)
    for model, column in (("shop", "a"), ("shop", "b"), ("mill", "a")):
        labels = {"model": model, "column": column, "method": "psi"}
        instruments.gauge("homeostat_drift_score", **labels).set(0.3)
    instruments.forget("homeostat_drift_score", model="shop")
    left = [s.labels for family in registry.collect() for s in family.samples]
    assert left == [{"model": "mill", "column": "a", "method": "psi"}]
