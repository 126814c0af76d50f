"""What the steps of a tick work with. Made once by the entry; nothing here is global."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from homeostat import events as types
from homeostat.errors import Unavailable
from homeostat.executor import LocalExecutor
from homeostat.journal.reader import Journal
from homeostat.metrics import Instruments
from homeostat.settings import Settings
from homeostat.state import events
from homeostat.state.store import State

if TYPE_CHECKING:
    from homeostat.registry.mlflow_registry import Registry

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Context:
    settings: Settings
    state: State
    registry: Registry
    journal: Journal
    executor: LocalExecutor
    instruments: Instruments
    clock: Callable[[], datetime]
    # What was away at the last try, in words: {"mlflow": "…"}; shown by status and metrics.
    waiting: dict[str, str] = field(default_factory=dict)

    @property
    def model(self) -> str:
        return self.settings.model.name

    def reach(self, what: str, call: Callable[[], T]) -> T:
        """Call something outside; note when it is away, and when it is back."""
        known = what in self.waiting
        gauge = self.instruments.gauge("homeostat_waiting_for", model=self.model, what=what)
        try:
            result = call()
        except Unavailable as error:
            self.waiting[what] = str(error)
            gauge.set(1)
            if not known:
                self._tell(types.LOOP_WAITING, what, str(error))
            raise
        self.waiting.pop(what, None)
        gauge.set(0)
        if known:
            self._tell(types.LOOP_RECOVERED, what, "")
        return result

    def _tell(self, type_: str, what: str, reason: str) -> None:
        with contextlib.suppress(Unavailable), self.state.begin() as tx:
            events.record(tx, type_, self.model, self.clock(), what=what, reason=reason)
