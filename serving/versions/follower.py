"""Follow the rollout record: fetch, verify, load and warm up what it names, then swap it in.

The record is a small file; nothing else has to be there. A version that cannot be had, is not
what its digest says or does not load never serves: the one before goes on. A version on trial comes
after the champion, and whatever is wrong with it is nothing to the champion. The record is looked
at while a version is fetched or loaded, too: a rollback waits for neither, a fetch ends once the
record names its version no more, and what was loaded by then never serves.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection

from homeostat.errors import HomeostatError
from homeostat.model_runtime.contract import LoadedModel
from homeostat.records import ModelSpec, Rollout, VersionRef
from homeostat.settings import Settings
from serving.versions.cached import load_version, make_present, verified
from serving.versions.gpu_room import Left, give_back, left_on_gpu, room_for
from serving.versions.journal import tell_misfit
from serving.versions.record import Record
from serving.versions.served_model import ServedModel, Version
from serving.versions.tries import Tries

log = logging.getLogger(__name__)

Load = Callable[[Settings, ModelSpec], LoadedModel]


class _Overtaken(Exception):
    """The record says something else than when the work began."""


class Follower:
    """Keeps one model on the versions its rollout record names."""

    def __init__(
        self,
        model: ServedModel,
        models: Collection[ServedModel],
        loading: asyncio.Lock,
        *,
        load: Load | None = None,
        left: Left = left_on_gpu,
    ) -> None:
        """`models`: all of the process, this one too; `loading`: on a GPU, they take turns; `load`:
        how a verified version of the cache gets into memory; `left`: how much of a GPU there is
        for it."""
        self._loading = loading
        self._load, self._left = load or load_version, left
        self._model, self._models = model, models
        self._served: VersionRef | None = None  # that served last, if it left memory meanwhile
        self._failed: tuple[VersionRef, str] | None = None  # for which it left in vain, and why
        self._settings = model.settings
        self._told: VersionRef | None = None  # of which it was told whether it fits the log
        self._record = Record(model.settings.rollout_path, model.name)
        self._champion, self._trial = Tries(), Tries()

    async def follow(self) -> None:
        """Until cancelled. A step may take minutes, and the storage of the log may; a rollback is
        seen beside both."""
        self._look()
        if self._record.says is None:
            log.info(
                "%s: nothing to serve yet: no version was promoted. `homeostat loop` or `homeostat "
                "retrain` makes the first one, beside this server; `homeostat up` starts both",
                self._model.name,
            )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again(self._look))
            group.create_task(self._again(self.step))
            group.create_task(self._again(self._tell_misfit))

    async def _again(self, work: Callable[[], Awaitable[None] | None]) -> None:
        """At each poll; no error ends it."""
        while True:
            try:
                if (going := work()) is not None:
                    await going
            except Exception:
                log.exception("following the rollout of %s failed; it goes on", self._model.name)
            await asyncio.sleep(self._settings.serving.poll.total_seconds())

    async def step(self) -> None:
        """Look once, and do what follows, however long it takes."""
        self._look()
        try:
            await self._follow_champion()
            await self._follow_trial()
        except _Overtaken as why:  # the next step does what the record says now
            log.info("%s: %s", self._model.name, why)

    def _look(self) -> None:
        """A version in memory serves as soon as the record says so."""
        if self._record.look():
            self._champion, self._trial = Tries(), Tries()
        rollout, model = self._record.says, self._model
        if rollout is None:
            return
        version = model.held(rollout.champion)
        if version is None:
            model.expect(rollout.champion)
            return
        self._served = self._failed = None
        if version is not model.current or model.rollout != rollout or model.problem:
            model.swap(version, rollout)

    def _still(self, rollout: Rollout) -> None:
        """Raises _Overtaken."""
        self._look()
        if self._record.says != rollout:
            raise _Overtaken("the rollout changed before a version was loaded for it")

    def _still_named(self, ref: VersionRef, rollout: Rollout) -> None:
        """Raises _Overtaken. A rollout that changed, but still has a place for the version, is no
        reason to fetch it from the start again."""
        self._look()
        if self._record.says != rollout and not self._wanted(ref):
            raise _Overtaken(f"version {ref.version} is fetched no further: the rollout changed")

    def _wanted(self, ref: VersionRef) -> bool:
        """As far as the record was looked at: to serve, or on trial beside the one that does."""
        rollout = self._record.says
        if rollout is None or rollout.champion == ref:
            return rollout is not None
        trial = rollout.trial
        return trial is not None and trial.version == ref and self._model.rollout == rollout

    async def _follow_champion(self) -> None:
        rollout, model, tries = self._record.says, self._model, self._champion
        if rollout is None or model.held(rollout.champion) is not None or not tries.due():
            return
        if model.current is not None:
            self._served = model.current.ref
        problem = await self._bring(rollout.champion, tries, rollout)
        if problem is None:
            return
        self._cannot(rollout.champion, problem)
        # here, where the error holds on to nothing of the load any more
        left = self._served
        if model.current is None and left is not None and left != rollout.champion:
            await self._bring_back(left, rollout, problem)

    async def _follow_trial(self) -> None:
        rollout, model, tries = self._record.says, self._model, self._trial
        if rollout is None or rollout.trial is None or model.rollout != rollout:
            return
        if model.trial is None and tries.due():
            problem = await self._bring(rollout.trial.version, tries, rollout)
            if problem is not None:
                self._cannot(rollout.trial.version, problem)

    def _cannot(self, ref: VersionRef, problem: str) -> None:
        """Told of what the version is by now: a trial may have been promoted meanwhile."""
        says = self._record.says
        if says is not None and says.champion == ref:
            self._model.failed(problem)
        else:
            self._model.trial_failed(problem)

    async def _bring(self, ref: VersionRef, tries: Tries, rollout: Rollout) -> str | None:
        """To where the record wants it by then; the problem, if it still wants what cannot be."""
        try:
            self._put(await self._brought(ref, tries, rollout, lambda: self._wanted(ref)))
            return None
        except _Overtaken:
            raise
        except (HomeostatError, OSError) as error:
            problem = self._put_off(ref, error, tries)
        except Exception as error:  # a version must not be able to end the follower
            log.exception("%s: version %s failed", self._model.name, ref.version)
            problem = self._put_off(ref, error, tries)
        return problem if self._wanted(ref) else None

    def _put(self, version: Version) -> None:
        rollout = self._record.says
        if rollout is not None and rollout.champion == version.ref:
            self._model.swap(version, rollout)
            self._served = self._failed = None
        else:
            self._model.try_out(version)

    async def _tell_misfit(self) -> None:
        """Once of each version that serves."""
        current, rollout = self._model.current, self._record.says
        if current is None or rollout is None or current.ref != rollout.champion:
            return
        if current.ref != self._told:
            self._told = current.ref
            await asyncio.to_thread(tell_misfit, self._settings, current.model.spec)

    async def _bring_back(self, ref: VersionRef, rollout: Rollout, problem: str) -> None:
        """The version that left memory for one that then could not be loaded."""
        await asyncio.to_thread(give_back)
        heir, model = rollout.champion, self._model
        try:
            version = await self._brought(ref, Tries(), rollout, lambda: model.current is None)
        except _Overtaken:
            raise
        except Exception as error:  # tried again when the successor is
            log.exception("%s: version %s cannot be brought back", model.name, ref.version)
            model.problem = f"{problem}; version {ref.version}, which left for it: {error}"
            return
        self._failed = heir, problem.removeprefix(f"version {heir.version}: ")
        model.bring_back(version, problem)

    async def _brought(
        self, ref: VersionRef, tries: Tries, rollout: Rollout, wanted: Callable[[], bool]
    ) -> Version:
        """In memory, warmed up. Raises _Overtaken when the record is not `rollout` any more before
        it is loaded, and when it is not `wanted` afterwards."""
        version = self._model.held(ref)
        if version is not None:
            return version
        self._model.is_being("fetched", ref)
        await make_present(self._settings, ref, tries, lambda: self._still_named(ref, rollout))
        self._model.is_being("loaded", ref)
        log.info("%s: version %s is being loaded", self._model.name, ref.version)
        spec = await asyncio.to_thread(verified, self._settings, ref)
        heir, why = self._failed or (None, "")
        room = room_for(
            self._model,
            ref,
            succeeds=ref == rollout.champion,
            failed=why if ref == heir else None,
            models=self._models,
            loading=self._loading,
            still=lambda: self._still(rollout),
            left=self._left,
        )
        async with room:
            self._still(rollout)
            started = time.perf_counter()
            loaded = await asyncio.to_thread(self._load, self._settings, spec)
            seconds = time.perf_counter() - started
            self._look()
            if not wanted():
                await asyncio.to_thread(loaded.close)
                raise _Overtaken(
                    f"version {ref.version} is closed: when loaded, not wanted any more"
                )
            return self._wrap(ref, loaded, seconds)

    def _wrap(self, ref: VersionRef, loaded: LoadedModel, seconds: float) -> Version:
        try:
            return self._model.wrap(ref, loaded, seconds)
        except BaseException:
            loaded.close()  # it may be a process of its own
            raise

    def _put_off(self, ref: VersionRef, error: Exception, tries: Tries) -> str:
        """What the problem is."""
        name, version = self._model.name, ref.version
        tail = getattr(error, "tail", "")
        log.error(
            "%s: version %s cannot serve, next try in %g s: %s%s",
            name,
            version,
            tries.failed(error),
            error,
            f"\n{tail}" if tail else "",
        )
        return f"version {version}: {error}"
