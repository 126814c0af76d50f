"""Refusals of requests that name no model served here, or that nobody has read yet: over gRPC the
name is in the message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from homeostat.metrics import Instruments
from serving.counting.measuring import Measuring

NAMELESS = "(unknown)"  # the model in metrics, where a server has several


class Measured(Protocol):
    """A served model, as far as it matters here."""

    measuring: Measuring


def nameless(
    models: Mapping[str, Measured], instruments: Instruments
) -> Callable[[int, str], None]:
    """What to call with the status and the kind of such a refusal."""
    if len(models) == 1:
        return next(iter(models.values())).measuring.refused

    def refused(status: int, kind: str) -> None:
        counter = instruments.counter
        counter("homeostat_requests_total", model=NAMELESS, code=str(status)).inc()
        counter("homeostat_errors_total", model=NAMELESS, kind=kind).inc()

    return refused
