"""The model that serves: its version now, the one before kept ready, and the swap between them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from homeostat.auth import Keyring
from homeostat.errors import NotReady
from homeostat.journal.writer import JournalWriter
from homeostat.model_runtime.contract import LoadedModel
from homeostat.records import Rollout, VersionRef
from homeostat.settings import Settings
from serving.answering import Answering
from serving.batcher import Batcher
from serving.images import ImageReader
from serving.journal import unknown_names
from serving.measuring import Measuring
from serving.open_inference.reader import InferReader
from serving.pace import Pace
from serving.parsing import RowReader

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version in memory, with all that is its own."""

    ref: VersionRef
    model: LoadedModel
    reader: RowReader
    v2: InferReader
    images: ImageReader
    batcher: Batcher
    load_seconds: float
    since: datetime


class ServedModel:
    """One model of the server. Changed from the event loop's thread alone."""

    def __init__(
        self,
        *,
        settings: Settings,
        keys: Keyring,
        journal: JournalWriter,
        measuring: Measuring,
        now_us: Callable[[], int],
    ) -> None:
        self.name = settings.model.name
        self.settings = settings
        self.keys = keys
        self.journal = journal
        self.measuring = measuring
        self.current: Version | None = None
        self.previous: Version | None = None
        self.epoch = 0
        self.problem: str | None = None  # why the rollout's version does not serve
        self._now_us = now_us
        self._closing: set[asyncio.Task[None]] = set()

    def ready(self) -> Version:
        """The version that serves; raises NotReady."""
        if self.current is None:
            why = self.problem or "no version was promoted yet"
            raise NotReady(f"no version of {self.name} serves: {why}")
        return self.current

    def held(self, ref: VersionRef) -> Version | None:
        """The version, if it is in memory."""
        for version in (self.current, self.previous):
            if version is not None and version.ref == ref:
                return version
        return None

    def wrap(self, ref: VersionRef, model: LoadedModel, load_seconds: float) -> Version:
        """A loaded model with a queue and a reader of its own, ready to be swapped in."""
        serving, journal = self.settings.serving, self.settings.journal
        if unknown := unknown_names(journal, model.spec.names):
            log.error("%s: version %s: %s", self.name, ref.version, unknown)
        must_log, pace = journal.when_full == "block", Pace()
        answering = Answering(
            model,
            self.journal,
            self.measuring,
            pace,
            must_log=must_log,
            max_batch_rows=serving.max_batch_rows,
            now_us=self._now_us,
        )
        batcher = Batcher(
            answering.answer,
            pace,
            # fsync would hold up the event loop
            blocking=model.blocking or journal.durability == "sync",
            max_batch_rows=serving.max_batch_rows,
            max_queued_rows=serving.max_queued_rows,
            patience=journal.block_for.total_seconds(),
            may_drop=not must_log,
            loop=asyncio.get_running_loop(),
        )
        return Version(
            ref=ref,
            model=model,
            reader=RowReader(model.spec),
            v2=InferReader(model.spec),
            images=ImageReader(model.spec),
            batcher=batcher,
            load_seconds=load_seconds,
            since=datetime.fromtimestamp(self._now_us() / 1e6, UTC),
        )

    def swap(self, version: Version, rollout: Rollout) -> None:
        """New requests go to `version` from here on; those that wait are the old one's still."""
        old, self.epoch, self.problem = self.current, rollout.epoch, None
        if old is not version:
            leaving = self.previous
            self.current, self.previous = version, old
            if leaving is not None and leaving is not version:
                self._close_later(leaving)
            log.info(
                "%s: version %s serves%s (epoch %d)",
                self.name,
                version.ref.version,
                f" instead of {old.ref.version}" if old else "",
                rollout.epoch,
            )
        self.measuring.serves(version.ref.version, rollout.epoch, version.load_seconds)

    def failed(self, problem: str) -> None:
        self.problem = problem
        self.measuring.version_failed()

    async def close(self) -> None:
        """Answer what waits, then give the memory back."""
        for version in (self.current, self.previous):
            if version is not None:
                self._close_later(version)
        self.current = self.previous = None
        await asyncio.gather(*self._closing)

    @property
    def queued_rows(self) -> int:
        versions = (self.current, self.previous)
        return sum(version.batcher.waiting_rows for version in versions if version is not None)

    def _close_later(self, version: Version) -> None:
        async def close() -> None:
            await version.batcher.close()
            await asyncio.to_thread(version.model.close)

        task = asyncio.ensure_future(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
