"""How much is measured, and how its progress is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Options:
    rounds: int = 3
    seconds: float = 6.0  # of load, a span
    warm_up: float = 2.0
    connections: Sequence[int] = (1, 16, 64, 256)
    quick: bool = False  # only to see that everything works: the figures mean nothing


QUICK = Options(rounds=1, seconds=1.0, warm_up=1.0, connections=(1, 64), quick=True)


class Steps:
    """A progress bar that names what runs."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def expect(self, steps: int) -> None:
        self._progress.update(self._task, total=steps)

    def tell(self, what: str) -> None:
        self._progress.update(self._task, description=what)

    def done(self) -> None:
        self._progress.advance(self._task)
