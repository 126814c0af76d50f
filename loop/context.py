"""What the steps of a tick work with. Made once by the entry; nothing here is global."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from homeostat.errors import Unavailable
from homeostat.executor import LocalExecutor
from homeostat.journal.reader import Journal
from homeostat.metrics import Instruments
from homeostat.settings import Settings
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
        gauge = self.instruments.gauge("homeostat_waiting_for", model=self.model, what=what)
        try:
            result = call()
        except Unavailable as error:
            self.waiting[what] = str(error)
            gauge.set(1)
            raise
        self.waiting.pop(what, None)
        gauge.set(0)
        return result
