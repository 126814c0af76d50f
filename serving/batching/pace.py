"""How long the journal takes over rows: told by who appends, asked by the event loop."""

from __future__ import annotations

from time import perf_counter
from types import TracebackType

SLOW = 0.05  # seconds; no disk that is well takes as long to take rows into its cache


class Pace:
    """Entered around an append. One append at a time."""

    def __init__(self) -> None:
        self._began: float | None = None
        self.took = 0.0  # seconds, the last append

    def __enter__(self) -> None:
        self._began = perf_counter()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.took, self._began = self.running(), None

    def running(self) -> float:
        """For how many seconds an append has been going on."""
        began = self._began
        return 0.0 if began is None else perf_counter() - began
