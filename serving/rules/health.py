"""Whether a version may be asked: its circuit breaker, with a clock."""

from __future__ import annotations

import logging
from collections.abc import Callable

from serving.rules.circuit import WELL, Circuit, Limits, Phase, told, tried

log = logging.getLogger(__name__)


class Health:
    """Of one version; used from the event loop's thread."""

    def __init__(
        self,
        name: str,
        limits: Limits,
        clock: Callable[[], float],
        changed: Callable[[Phase], None],
    ) -> None:
        self.well = True  # nothing needs to be told that did not fail
        self.away = False  # its process has ended and is being started again
        self._name = name
        self._limits = limits
        self._clock = clock
        self._changed = changed
        self._circuit = WELL

    @property
    def phase(self) -> Phase:
        return Phase.OPEN if self.away else self._circuit.phase

    def told(self, answered: int, failed: int) -> None:
        """So many requests were answered, so many failed by the version's own fault."""
        if answered or failed:
            self._move(told(self._circuit, self._limits, answered, failed, self._clock()))

    def gone(self, away: bool) -> None:
        """Its process ended, or the start of the next one is over."""
        self.away = away
        self._changed(self.phase)

    def ask(self) -> bool:
        """Whether to ask it for one request; it may be the one that tries it again."""
        if self.away:
            return False
        asks, circuit = tried(self._circuit, self._limits, self._clock())
        self._move(circuit)
        return asks

    def _move(self, circuit: Circuit) -> None:
        before, self._circuit = self._circuit.phase, circuit
        self.well = circuit == WELL
        if circuit.phase is before:
            return
        if circuit.phase is Phase.OPEN:
            log.error("%s fails: others answer for %g s", self._name, circuit.rest)
        elif circuit.phase is Phase.CLOSED:
            log.warning("%s answers again", self._name)
        self._changed(self.phase)
