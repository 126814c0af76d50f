"""What a server says for all its processes: whether it is ready, what was counted, what is stored.

One process alone speaks for itself; a worker asks its supervisor, which asks all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol

from prometheus_client import CollectorRegistry

from homeostat.errors import JournalUnavailable, NotReady, Unavailable
from serving.counting.scraping import families_of
from serving.counting.snapshot import Snapshot, as_snapshot
from serving.sharing.line import Line
from serving.versions.served_model import ServedModel

SOON = 5.0  # seconds; a scrape usually waits ten
STORING = 60.0  # seconds, for everything to be in the tables

Stored = Mapping[str, int]


class Peers(Protocol):
    async def check_ready(self) -> None:
        """Raises NotReady where another process is not."""
        ...

    async def snapshot(self) -> Snapshot:
        """Of all processes; raises Unavailable."""
        ...

    async def flush(self, model: str) -> Stored:
        """Commit what any process has logged; raises JournalUnavailable."""
        ...


class Alone:
    """This process. `before`: what else is brought up to date for a snapshot."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        registry: CollectorRegistry,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._models = models
        self._registry = registry
        self._before = before

    async def check_ready(self) -> None:
        """There is nobody else."""

    async def snapshot(self) -> Snapshot:
        now = datetime.now(UTC)
        for model in self._models.values():
            model.measuring.live(len(model.versions))
            model.measuring.refresh(model.queued_rows, model.journal.level(), now)
        self._before()
        observing = {name: model.measuring.observing for name, model in self._models.items()}
        return Snapshot(
            families_of(self._registry),
            {name: each.inputs() for name, each in observing.items()},
            {name: each.keys() for name, each in observing.items()},
        )

    async def flush(self, model: str) -> Stored:
        journal = self._models[model].journal
        await asyncio.to_thread(journal.flush)
        level = journal.level()
        return {"received": level.received, "stored": level.stored}


class Worker:
    """One of several."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def check_ready(self) -> None:
        try:
            problem: str = await self._line.ask("ready", within=SOON)
        except Unavailable as error:
            problem = str(error)
        if problem:
            raise NotReady(problem)

    async def snapshot(self) -> Snapshot:
        return as_snapshot(await self._line.ask("snapshot", within=SOON))

    async def flush(self, model: str) -> Stored:
        try:
            stored: dict[str, int] = await self._line.ask("flush", model, within=STORING)
        except Unavailable as error:
            raise JournalUnavailable(str(error)) from None
        return stored


async def check_ready(
    models: Mapping[str, ServedModel], peers: Peers, draining: Callable[[], bool]
) -> None:
    """Raises NotReady where this process or another one is not."""
    if draining():
        raise NotReady("the server is going down")
    for model in models.values():
        model.ready()
        if model.waits_for:
            raise NotReady(f"{model.name}: {model.waits_for}")
    await peers.check_ready()
