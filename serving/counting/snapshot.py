"""What one process has counted at a moment, and how that of several becomes one.

The supervisor puts them together as well, so nothing heavy is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from homeostat.metrics import METRICS

Labels = tuple[tuple[str, str], ...]

# Of the process's own gauges, which prometheus_client declares.
_PROCESS = {"process_start_time_seconds": "least", "process_max_fds": "least"}
_AMONG = {metric.name: metric.among for metric in METRICS} | _PROCESS
_LASTING = ("counter", "histogram")
_COMBINE: Mapping[str, Callable[[float, float], float]] = {
    "sum": lambda one, other: one + other,
    "most": max,
    "least": min,
}


class Sample(msgspec.Struct, array_like=True, frozen=True):
    name: str
    labels: Labels
    value: float


class Family(msgspec.Struct, array_like=True, frozen=True):
    """A metric with all its series."""

    name: str  # as declared, a counter's with _total
    kind: str
    help: str
    samples: tuple[Sample, ...]


class Moments(msgspec.Struct, array_like=True, frozen=True):
    """Of some values: how many, their mean, and the sum of squared distances from it."""

    count: float
    mean: float
    squares: float

    def __add__(self, other: Moments) -> Moments:
        if not self.count or not other.count:
            return self if self.count else other
        count, apart = self.count + other.count, other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * other.count / count,
            self.squares + other.squares + apart * apart * self.count * other.count / count,
        )

    @property
    def deviation(self) -> float:
        return math.sqrt(max(0.0, self.squares) / self.count) if self.count else 0.0


class Snapshot(msgspec.Struct, frozen=True):
    families: tuple[Family, ...] = ()
    inputs: dict[str, dict[str, Moments]] = {}  # by model and feature, of late
    keys: dict[str, bytes] = {}  # by model, the registers of a sketch


def as_snapshot(told: Any) -> Snapshot:
    """As it came over a line."""
    return msgspec.convert(told, Snapshot)


def merged(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Of several processes at the same time."""
    families: dict[str, Family] = {}
    inputs: dict[str, dict[str, Moments]] = {}
    keys: dict[str, bytes] = {}
    for each in snapshots:
        for family in each.families:
            known = families.get(family.name)
            families[family.name] = family if known is None else _together(known, family)
        for model, features in each.inputs.items():
            sums = inputs.setdefault(model, {})
            for name, moments in features.items():
                sums[name] = sums[name] + moments if name in sums else moments
        for model, registers in each.keys.items():
            known_keys = keys.get(model, b"")
            keys[model] = bytes(map(max, known_keys, registers)) if known_keys else registers
    return Snapshot(tuple(families.values()), inputs, keys)


def lasting(snapshot: Snapshot) -> Snapshot:
    """What still counts once the process is gone: no counter may go back."""
    families = tuple(family for family in snapshot.families if family.kind in _LASTING)
    return Snapshot(families, {}, snapshot.keys)


def _together(one: Family, other: Family) -> Family:
    rule = "sum" if one.kind in _LASTING else _AMONG.get(one.name, "sum")
    combine = _COMBINE[rule]
    values = {(sample.name, sample.labels): sample.value for sample in one.samples}
    for sample in other.samples:
        key = sample.name, sample.labels
        values[key] = combine(values[key], sample.value) if key in values else sample.value
    samples = tuple(Sample(name, labels, value) for (name, labels), value in values.items())
    return Family(one.name, one.kind, one.help, samples)
