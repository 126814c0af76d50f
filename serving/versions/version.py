"""One version in memory, with all that is its own: readers, queues, breaker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from homeostat.journal.writer import JournalWriter
from homeostat.model_runtime.contract import InProcess, LoadedModel
from homeostat.records import VersionRef
from homeostat.settings import Settings
from serving.batching.answering import Answering
from serving.batching.batcher import Batcher
from serving.batching.pace import Pace
from serving.batching.recalling import Recalling
from serving.counting.measuring import Measuring
from serving.open_inference.reader import InferReader
from serving.requests.aside import MOST_BYTES, Aside
from serving.requests.images import ImageReader
from serving.requests.parsing import RowReader
from serving.rules.circuit import Limits, Phase
from serving.rules.health import Health
from serving.rules.memory import Memory
from serving.tracing.batches import Followed, TracedAnswering, TracedBatcher
from serving.tracing.tracing import Tracing


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version in memory, with all that is its own."""

    ref: VersionRef
    model: LoadedModel
    loop_rows: int  # answered on the event loop, by the model's speed and how durable the log is
    reader: RowReader
    v2: InferReader
    images: ImageReader
    large: Aside  # reads bodies that would hold up the event loop
    batcher: Batcher
    mirror: Batcher  # of the requests that it answers as a shadow
    health: Health
    load_seconds: float
    since: datetime

    async def close(self) -> None:
        """Answer what waits, then give the memory back; cancelled, without waiting any longer."""
        try:
            await self.mirror.close()
            await self.batcher.close()
        finally:
            await asyncio.to_thread(self.model.close)


class Assembly:
    """Makes the versions of one model."""

    def __init__(
        self,
        settings: Settings,
        journal: JournalWriter,
        measuring: Measuring,
        memory: Memory | None,
        now_us: Callable[[], int],
        changed: Callable[[], None],
        tracing: Tracing | None = None,
    ) -> None:
        """`changed`: called when a version's breaker opens or closes."""
        self._settings = settings
        self._journal = journal
        self._measuring = measuring
        self._memory = memory
        self._now_us = now_us
        self._changed = changed
        self._tracing = tracing

    def version(self, ref: VersionRef, model: LoadedModel, load_seconds: float) -> Version:
        """Called on the event loop."""
        journal, loop = self._settings.journal, asyncio.get_running_loop()
        pace, health = Pace(), self._health(ref.version, loop)
        # fsync would hold up the event loop
        loop_rows = 0 if journal.durability == "sync" else model.loop_rows
        followed = None
        if self._tracing is not None:
            followed = Followed(self._tracing, self._settings.model.name, ref.version)
        answering = self._answering(model, pace, followed, blocking=loop_rows == 0)
        patience = journal.block_for.total_seconds()
        if isinstance(model, InProcess):
            model.watch(partial(_tell, loop, health))
        return Version(
            ref=ref,
            model=model,
            loop_rows=loop_rows,
            reader=RowReader(model.spec, self._settings.serving.max_queued_rows),
            v2=InferReader(model.spec, self._settings.serving.max_queued_rows),
            images=ImageReader(model.spec),
            large=Aside("bytes of large bodies", MOST_BYTES),
            batcher=self._batcher(
                answering, pace, health, followed, loop, loop_rows=loop_rows, patience=patience
            ),
            # a shadow's rows wait for no room in the log, and nobody traces them
            mirror=self._batcher(
                answering, pace, health, None, loop, loop_rows=loop_rows, patience=0.0
            ),
            health=health,
            load_seconds=load_seconds,
            since=datetime.fromtimestamp(self._now_us() / 1e6, UTC),
        )

    def _answering(
        self, model: LoadedModel, pace: Pace, followed: Followed | None, *, blocking: bool
    ) -> Answering | Recalling:
        serving, version = self._settings.serving, model.spec.version
        make = Answering if followed is None else partial(TracedAnswering, followed=followed)
        answering = make(
            model,
            self._journal,
            self._measuring,
            pace,
            must_log=self._settings.journal.when_full == "block",
            max_batch_rows=serving.max_batch_rows,
            now_us=self._now_us,
        )
        # what a small network says is computed sooner than compared
        if self._memory is None and not (serving.coalesce and blocking):
            return answering
        counts = self._measuring.versions
        return Recalling(answering, version, self._memory, counts.coalesced)

    def _batcher(
        self,
        answering: Answering | Recalling,
        pace: Pace,
        health: Health,
        followed: Followed | None,
        loop: asyncio.AbstractEventLoop,
        *,
        loop_rows: int,
        patience: float,
    ) -> Batcher:
        serving = self._settings.serving
        make = Batcher if followed is None else partial(TracedBatcher, followed=followed)
        return make(
            answering.answer,
            pace,
            loop_rows=loop_rows,
            max_batch_rows=serving.max_batch_rows,
            max_queued_rows=serving.max_queued_rows,
            patience=patience,
            may_drop=self._settings.journal.when_full != "block",
            loop=loop,
            health=health,
            gather=serving.batch_wait.total_seconds(),
            waited=self._measuring.waited,
            rested=answering.forget,
            computing=answering.computing,
        )

    def _health(self, version: str, loop: asyncio.AbstractEventLoop) -> Health:
        serving, counts = self._settings.serving, self._measuring.versions
        limits = Limits(
            in_a_row=serving.breaker_errors,
            share=serving.breaker_share,
            rest=serving.breaker_rest.total_seconds(),
        )

        def changed(phase: Phase) -> None:
            counts.breaker(version, phase)
            self._changed()

        counts.breaker(version, Phase.CLOSED)
        name = f"{self._settings.model.name}: version {version}"
        return Health(name, limits, loop.time, changed)


def _tell(loop: asyncio.AbstractEventLoop, health: Health, away: bool) -> None:
    with suppress(RuntimeError):  # the loop is closed, and the server ends
        loop.call_soon_threadsafe(health.gone, away)
