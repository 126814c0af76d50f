"""A circuit breaker: when a version has failed too often to be asked, and when it is tried again.

A pure state machine; who uses it brings the clock. While all is well it is one shared state, and
nothing is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

LONGEST_REST = 60.0  # seconds
LEAST = 20  # requests: a share of fewer says little


class Phase(StrEnum):
    CLOSED = "closed"  # it is asked
    OPEN = "open"  # it is not
    HALF_OPEN = "half_open"  # one request tries it


@dataclass(frozen=True, kw_only=True)
class Limits:
    in_a_row: int  # failures; 0: they never open it
    share: float  # of the requests of one span of time; 1: it never opens it
    rest: float  # seconds until the first try; each that fails doubles it
    span: float = 10.0  # seconds over which a share is taken


@dataclass(frozen=True, kw_only=True)
class Circuit:
    phase: Phase = Phase.CLOSED
    in_a_row: int = 0
    asked: int = 0  # since the first failure, within one span
    failed: int = 0
    since: float = 0.0  # when that span began; when it was opened, or tried
    rest: float = 0.0  # seconds to stay open from `since`


WELL = Circuit()


def told(circuit: Circuit, limits: Limits, answered: int, failed: int, now: float) -> Circuit:
    """After so many requests that it answered, and so many on which it failed, together."""
    match circuit.phase:
        case Phase.OPEN:  # asked before it was opened, or by name
            return circuit
        case Phase.HALF_OPEN:
            if failed:
                rest = min(LONGEST_REST, max(limits.rest, circuit.rest * 2))
                return Circuit(phase=Phase.OPEN, since=now, rest=rest)
            return WELL
    in_a_row = 0 if answered else circuit.in_a_row + failed  # a row may last longer than a span
    if circuit == WELL or now - circuit.since >= limits.span:
        circuit = replace(WELL, since=now)
        if not failed:
            return WELL
    circuit = replace(
        circuit,
        in_a_row=in_a_row,
        asked=circuit.asked + answered + failed,
        failed=circuit.failed + failed,
    )
    if over(circuit, limits):
        return Circuit(phase=Phase.OPEN, since=now, rest=limits.rest)
    return circuit


def over(circuit: Circuit, limits: Limits) -> bool:
    if 0 < limits.in_a_row <= circuit.in_a_row:
        return True
    return circuit.asked >= LEAST and circuit.failed > limits.share * circuit.asked


def tried(circuit: Circuit, limits: Limits, now: float) -> tuple[bool, Circuit]:
    """Whether to ask it for one request now, and what holds from then on.

    A try of which nothing was heard (its caller went away) is given up after a while.
    """
    if circuit.phase is Phase.CLOSED:
        return True, circuit
    if now - circuit.since < max(circuit.rest, limits.rest):
        return False, circuit
    return True, replace(circuit, phase=Phase.HALF_OPEN, since=now)
