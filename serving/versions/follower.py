"""Follow the rollout record: fetch, verify, load and warm up what it names, then swap it in.

The record is a small file; nothing else has to be there. A version that cannot be had, is not
what its digest says or does not load never serves: the one before goes on. A version on trial comes
after the champion, and whatever is wrong with it is nothing to the champion.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import msgspec

from homeostat.errors import (
    HomeostatError,
    IntegrityError,
    JournalUnavailable,
    ModelError,
    NotReady,
)
from homeostat.model_runtime.contract import LoadedModel
from homeostat.model_runtime.loading import load
from homeostat.model_runtime.placement import placement_of
from homeostat.records import ModelSpec, Rollout, VersionRef, from_json
from homeostat.registry.cache import entry_path, read_spec, verify
from homeostat.settings import Settings
from serving.versions.fetching import fetch
from serving.versions.gpu_room import Left, give_back, left_on_gpu, room_for
from serving.versions.journal import misfit
from serving.versions.served_model import ServedModel, Version

log = logging.getLogger(__name__)

Load = Callable[[Settings, ModelSpec], LoadedModel]

FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0


@dataclass(frozen=True)
class _Seen:
    """Enough of a file's state to know that it was replaced."""

    inode: int
    mtime_ns: int
    size: int


class _Tries:
    """When to try again what failed."""

    def __init__(self) -> None:
        self.fetch_anew = False  # the cache holds the version, but not as it was recorded
        self.due_at = 0.0
        self.wait = FIRST_RETRY

    def due(self) -> bool:
        return time.monotonic() >= self.due_at

    def failed(self, error: Exception) -> float:
        """The seconds until the next."""
        wait, self.wait = self.wait, min(self.wait * 2, LONGEST_RETRY)
        self.fetch_anew = isinstance(error, IntegrityError)
        self.due_at = time.monotonic() + wait
        return wait


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
        self._seen: _Seen | None = None
        self._rollout: Rollout | None = None
        self._champion, self._trial = _Tries(), _Tries()

    async def follow(self) -> None:
        """Until cancelled; no error ends it."""
        while True:
            try:
                await self.step()
            except Exception:
                log.exception("following the rollout of %s failed; it goes on", self._model.name)
            await asyncio.sleep(self._settings.serving.poll.total_seconds())

    async def step(self) -> None:
        """Look once, and do what follows."""
        if self._look():
            self._champion, self._trial = _Tries(), _Tries()
        rollout = self._rollout
        if rollout is None:
            return
        await self._follow_champion(rollout)
        if self._model.rollout == rollout:
            await self._follow_trial(rollout)

    async def _follow_champion(self, rollout: Rollout) -> None:
        model, current = self._model, self._model.current
        if current is not None and current.ref == rollout.champion:
            self._failed = None
            if model.rollout != rollout or model.problem:
                model.swap(current, rollout)
            return
        if not self._champion.due():
            return
        if current is not None:
            self._served = current.ref
        try:
            version = await self._brought(rollout.champion, self._champion)
            model.swap(version, rollout)
            self._served = self._failed = None
            await asyncio.to_thread(tell_misfit, self._settings, version)
            return
        except (HomeostatError, OSError) as error:
            problem = self._put_off(rollout.champion, error, self._champion)
        except Exception as error:  # a version must not be able to end the follower
            log.exception("%s: version %s failed", model.name, rollout.champion.version)
            problem = self._put_off(rollout.champion, error, self._champion)
        model.failed(problem)
        # here, where the error holds on to nothing of the load any more
        left = self._served
        if model.current is None and left is not None and left != rollout.champion:
            await self._bring_back(left, rollout.champion, problem)

    async def _bring_back(self, ref: VersionRef, heir: VersionRef, problem: str) -> None:
        """The version that left memory for one that then could not be loaded."""
        await asyncio.to_thread(give_back)
        try:
            version = await self._brought(ref, _Tries())
        except Exception as error:  # tried again when the successor is
            log.exception("%s: version %s cannot be brought back", self._model.name, ref.version)
            self._model.problem = f"{problem}; version {ref.version}, which left for it: {error}"
            return
        self._failed = heir, problem.removeprefix(f"version {heir.version}: ")
        self._model.bring_back(version, problem)

    async def _follow_trial(self, rollout: Rollout) -> None:
        model, trial = self._model, rollout.trial
        if trial is None or model.trial is not None or not self._trial.due():
            return
        try:
            model.try_out(await self._brought(trial.version, self._trial))
        except (HomeostatError, OSError) as error:
            model.trial_failed(self._put_off(trial.version, error, self._trial))
        except Exception as error:
            log.exception("%s: version %s failed", model.name, trial.version.version)
            model.trial_failed(self._put_off(trial.version, error, self._trial))

    async def _brought(self, ref: VersionRef, tries: _Tries) -> Version:
        """In memory, warmed up."""
        version = self._model.held(ref)
        if version is not None:
            return version
        await self._make_present(ref, tries)
        spec = await asyncio.to_thread(verified, self._settings, ref)
        heir, why = self._failed or (None, "")
        room = room_for(
            self._model,
            ref,
            succeeds=tries is self._champion,
            failed=why if ref == heir else None,
            models=self._models,
            loading=self._loading,
            left=self._left,
        )
        async with room:
            started = time.perf_counter()
            loaded = await asyncio.to_thread(self._load, self._settings, spec)
            return self._wrap(ref, loaded, time.perf_counter() - started)

    def _wrap(self, ref: VersionRef, loaded: LoadedModel, seconds: float) -> Version:
        try:
            return self._model.wrap(ref, loaded, seconds)
        except BaseException:
            loaded.close()  # it may be a process of its own
            raise

    def _look(self) -> bool:
        """Read the record again if it was replaced; whether it now says something else."""
        path = self._settings.rollout_path
        try:
            stat = path.stat()
            seen = _Seen(stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen == self._seen:
                return False
            rollout = from_json(path.read_bytes(), Rollout)
        except FileNotFoundError:
            return False  # the last known record holds
        except (OSError, msgspec.DecodeError) as error:
            self._seen = None
            log.warning("%s cannot be read (%s); the last known record holds", path, error)
            return False
        self._seen = seen
        if rollout.model != self._model.name:
            log.warning("%s is about %s, not %s", path, rollout.model, self._model.name)
            return False
        changed, self._rollout = rollout != self._rollout, rollout
        return changed

    async def _make_present(self, ref: VersionRef, tries: _Tries) -> None:
        """Fetch the version by a helper process unless the cache holds it.

        The helper leaves a sound entry as it is and replaces a harmed one.
        """
        settings = self._settings
        entry = entry_path(settings.cache_path, settings.model.name, ref.version)
        try:
            if not tries.fetch_anew:
                read_spec(entry)
                return
        except (NotReady, IntegrityError):
            pass
        tries.fetch_anew = False
        await fetch(settings, ref.version)

    def _put_off(self, ref: VersionRef, error: Exception, tries: _Tries) -> str:
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


def tell_misfit(settings: Settings, version: Version) -> None:
    """Settings may have changed since the version passed its gate."""
    name, number = settings.model.name, version.ref.version
    try:
        problem = misfit(settings, version.model.spec)
    except JournalUnavailable as away:
        log.warning("%s: whether version %s fits the log is not known: %s", name, number, away)
        return
    if problem is not None:
        log.error("%s: version %s: %s", name, number, problem)


def verified(settings: Settings, ref: VersionRef) -> ModelSpec:
    """Of the version in the cache; raises IntegrityError before anything of it runs, and before
    another version leaves for it."""
    entry = entry_path(settings.cache_path, settings.model.name, ref.version)
    spec = verify(entry, ref.digest)
    if spec.task is not settings.model.task:
        raise ModelError(
            f"version {ref.version} is for {spec.task}, the project for {settings.model.task}"
        )
    return spec


def load_version(settings: Settings, spec: ModelSpec) -> LoadedModel:
    """Into memory, warmed up."""
    return load(
        entry_path(settings.cache_path, settings.model.name, spec.version),
        spec,
        embedding=settings.serving.embedding,
        classes=settings.model.classes,
        threads=settings.serving.threads,
        placement=placement_of(settings.serving),
    )
