"""What a Prometheus metric is declared as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
