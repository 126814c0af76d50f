"""A process's registry -> a snapshot -> Prometheus' text."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from serving.counting.distinct import estimate
from serving.counting.snapshot import Family, Sample, Snapshot

_CREATED = "_created"  # when a series began: of no use once several are added up


def families_of(registry: CollectorRegistry) -> tuple[Family, ...]:
    return tuple(
        Family(
            f"{metric.name}_total" if metric.type == "counter" else metric.name,
            metric.type,
            metric.documentation,
            tuple(
                Sample(sample.name, tuple(sample.labels.items()), sample.value)
                for sample in metric.samples
                if not sample.name.endswith(_CREATED)
            ),
        )
        for metric in registry.collect()
    )


def text_of(snapshot: Snapshot) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Shown(snapshot))
    return generate_latest(registry)


def _derived(snapshot: Snapshot) -> Iterator[tuple[str, Sample]]:
    """What can be said only of all processes together, by the metric it belongs to."""
    for model, features in snapshot.inputs.items():
        for feature, moments in features.items():
            if moments.count:
                labels = (("model", model), ("feature", feature))
                for name, value in (
                    ("homeostat_input_mean", moments.mean),
                    ("homeostat_input_deviation", moments.deviation),
                ):
                    yield name, Sample(name, labels, value)
    for model, registers in snapshot.keys.items():
        name = "homeostat_unique_keys"
        yield name, Sample(name, (("model", model),), round(estimate(registers)))


class _Shown:
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._derived: dict[str, list[Sample]] = {}
        for name, sample in _derived(snapshot):
            self._derived.setdefault(name, []).append(sample)

    def describe(self) -> Iterator[Metric]:
        """Names nobody else takes: the registry is its own."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        for family in self._snapshot.families:
            metric = Metric(family.name.removesuffix("_total"), family.help, family.kind)
            for sample in (*family.samples, *self._derived.get(family.name, ())):
                metric.add_sample(sample.name, dict(sample.labels), sample.value)
            yield metric
