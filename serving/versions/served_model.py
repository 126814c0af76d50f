"""The model that serves: its version now, the one before kept ready, one on trial beside them, and
the swap between them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from homeostat.auth import Keyring
from homeostat.errors import NotReady
from homeostat.journal.writer import JournalWriter
from homeostat.model_runtime.contract import LoadedModel
from homeostat.model_runtime.likeness import alike
from homeostat.records import Rollout, TrialKind, VersionRef
from homeostat.settings import Settings
from serving.batching.shadow import Shadow
from serving.counting.measuring import Measuring
from serving.requests.problem import Refused
from serving.rules.circuit import Phase
from serving.rules.memory import Memory
from serving.rules.routing import Role
from serving.tracing.tracing import Tracing
from serving.versions.coming import Coming
from serving.versions.default_answer import DEFAULT, DefaultAnswer
from serving.versions.journal import unknown_names
from serving.versions.version import Assembly, Version

__all__ = ["ServedModel", "Version"]

log = logging.getLogger(__name__)

AT_LEAST = 1.0  # seconds, for models to end
GIVEN_UP = 3.0  # seconds for a model to end that hangs


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
        tracing: Tracing | None = None,
    ) -> None:
        self.name = settings.model.name
        self.settings = settings
        self.keys = keys
        self.journal = journal
        self.measuring = measuring
        cache = settings.serving.cache
        self.memory = measuring.versions.memory = Memory(int(cache)) if cache else None
        self.rollout: Rollout | None = None  # what is being served
        self.current: Version | None = None
        self.previous: Version | None = None
        self.trial: Version | None = None
        self.shadow: Shadow | None = None  # of the version on trial, where it is one
        self.default: Version | None = None  # not a version, but what is said without one
        self.plain: Version | None = None  # the one that all requests go to, if it is so simple
        self.problem: str | None = None  # why the rollout's version does not serve
        self.coming: Coming | None = None  # what is to serve, and is not in memory yet
        self.trial_problem: str | None = None
        self._assembly = Assembly(
            settings, journal, measuring, self.memory, now_us, self._find_plain, tracing
        )
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def epoch(self) -> int:
        return self.rollout.epoch if self.rollout else 0

    @property
    def versions(self) -> list[Version]:
        """Those in memory."""
        held = (self.current, self.previous, self.trial)
        return list({id(each): each for each in held if each is not None}.values())

    def ready(self) -> Version:
        """The version that serves; raises NotReady."""
        if self.current is None:
            raise NotReady(f"no version of {self.name} serves: {self.waits_for}")
        return self.current

    @property
    def waits_for(self) -> str:
        """Why it is not ready; empty where it is."""
        if self.current is None:
            return self.problem or str(self.coming or "no version was promoted yet")
        if self.current.health.away:
            version = self.current.ref.version
            return f"the process of version {version} has ended and is being started again"
        return ""

    def expect(self, ref: VersionRef) -> None:
        """The record wants it to serve, and it is not in memory."""
        if self.coming is None or self.coming.ref != ref:
            self.coming, self.problem = Coming(ref), None

    def is_being(self, step: str, ref: VersionRef) -> None:
        """Fetched, or loaded; also a version that is not to serve, of which nobody is told."""
        if self.coming is not None and self.coming.ref == ref:
            self.coming.step = step

    def held(self, ref: VersionRef) -> Version | None:
        """The version, if it is in memory."""
        return next((each for each in self.versions if each.ref == ref), None)

    def named(self, name: str) -> tuple[Version, Role]:
        """The version of that name, and what it is; raises NotReady, Refused (404)."""
        self.ready()
        roles = (
            (self.current, Role.CHAMPION),
            (self.trial, Role.CHALLENGER),
            (self.previous, Role.PREVIOUS),
        )
        for version, role in roles:
            if version is not None and version.ref.version == name:
                return version, role
        there = ", ".join(each.ref.version for each in self.versions)
        raise Refused(
            f"version {name[:40]} of {self.name} is not in memory; those that are: {there}",
            status=404,
        )

    def wrap(self, ref: VersionRef, model: LoadedModel, load_seconds: float) -> Version:
        """A loaded model with a queue and a reader of its own, ready to be swapped in."""
        if unknown := unknown_names(self.settings.journal, model.spec.names):
            log.error("%s: version %s: %s", self.name, ref.version, unknown)
        return self._assembly.version(ref, model, load_seconds)

    def swap(self, version: Version, rollout: Rollout) -> None:
        """New requests go to `version` from here on; those that wait are the old one's still."""
        old, self.problem, self.rollout = self.current, None, rollout
        self.coming = None
        trial = self.trial
        if trial is not None and (rollout.trial is None or rollout.trial.version != trial.ref):
            trial = None
        if old is version:
            self._place(version, self.previous, trial)
        else:
            self._place(version, old, trial)
            self._make_default(version)
            log.info(
                "%s: version %s serves%s (epoch %d)",
                self.name,
                version.ref.version,
                f" instead of {old.ref.version}" if old else "",
                rollout.epoch,
            )
        self.measuring.serves(version.ref.version, rollout.epoch, version.load_seconds)

    def try_out(self, version: Version) -> None:
        """Beside the champion, as the rollout says."""
        assert self.rollout is not None
        assert self.rollout.trial is not None
        trial = self.rollout.trial
        self._place(self.ready(), self.previous, version)
        self.trial_problem = None
        if not alike(self.ready().model.spec, version.model.spec):
            self.trial_problem = (
                f"version {trial.version.version} takes or gives something else than the champion: "
                "it is asked by name alone"
            )
            log.error("%s: %s", self.name, self.trial_problem)
        log.info(
            "%s: version %s is on trial (%s, share %g)",
            self.name,
            trial.version.version,
            trial.kind,
            trial.share,
        )

    async def evict(self, version: Version, why: str) -> None:
        """Out of memory when it returns, what waits for it answered."""
        held = [self.current, self.previous, self.trial]
        if version is self.current:
            self.problem = why
        self._place(*(None if each is version else each for each in held))
        await asyncio.gather(*self._closing)

    def bring_back(self, version: Version, problem: str) -> None:
        """It left for a successor that could not be loaded; `problem` says why, and stays."""
        self._place(version, self.previous, self.trial)
        self.problem = problem
        self.measuring.serves(version.ref.version, self.epoch, version.load_seconds)
        log.warning("%s: version %s serves again: %s", self.name, version.ref.version, problem)

    def failed(self, problem: str) -> None:
        self.problem = problem
        self.measuring.version_failed()

    def trial_failed(self, problem: str) -> None:
        self.trial_problem = problem
        self.measuring.version_failed()

    async def close(self, within: float | None = None) -> None:
        """Answer what waits, then give the memory back. What is not answered within so many seconds
        gets no answer: a model that hangs holds up nobody's end."""
        self._place(None, None, None)
        if self.default is not None:
            self._close_later(self.default)
        self.default = None
        if not self._closing:
            return
        # even an idle model needs a moment, also where nothing is left of the time
        limit = None if within is None else max(within, AT_LEAST)
        _, left = await asyncio.wait(self._closing, timeout=limit)
        if left:
            log.error("%s: what still waits for its model is not answered any more", self.name)
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=GIVEN_UP)

    @property
    def queued_rows(self) -> int:
        return sum(version.batcher.waiting_rows for version in self.versions)

    def _place(
        self, current: Version | None, previous: Version | None, trial: Version | None
    ) -> None:
        """Who is what; whoever is nothing any more leaves."""
        before = self.versions
        if trial is not self.trial:
            self.trial_problem = None
        self.current, self.previous, self.trial = current, previous, trial
        self._find_shadow()
        self._find_plain()
        staying = self.versions
        for version in before:
            if version not in staying:
                self.measuring.versions.gone(version.ref.version)
                self.measuring.observing.gone(version.ref.version)
                self._close_later(version)

    def _find_shadow(self) -> None:
        if self.shadow is not None:
            self.shadow.close()
            self.shadow = None
        trial = self.rollout.trial if self.rollout else None
        if self.trial is None or trial is None or trial.kind is not TrialKind.SHADOW:
            return
        self.shadow = Shadow(
            self.trial.mirror,
            limit=self.settings.serving.shadow_rows,
            busy=lambda: self.queued_rows > 0,
            dropped=self.measuring.versions.shadow_dropped,
            loop=asyncio.get_running_loop(),
        )

    def _find_plain(self) -> None:
        current = self.current
        simple = current is not None and self.trial is None and current.health.phase is Phase.CLOSED
        self.plain = current if simple else None

    def _make_default(self, version: Version) -> None:
        """For the rows that this version takes."""
        text, old = self.settings.serving.default_answer, self.default
        if text is None:
            return
        ref = VersionRef(version=DEFAULT, digest="")
        self.default = self._assembly.version(ref, DefaultAnswer(version.model.spec, text), 0.0)
        self.measuring.versions.gone(DEFAULT)
        if old is not None:
            self._close_later(old)

    def _close_later(self, version: Version) -> None:
        async def close() -> None:
            await version.close()
            if self.memory is not None and self.held(version.ref) is None:
                self.memory.forget(version.ref.version)

        task = asyncio.ensure_future(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
