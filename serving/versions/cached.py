"""A version of the local cache: brought there where it is not, verified, loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable

from homeostat.errors import IntegrityError, ModelError, NotReady
from homeostat.model_runtime.contract import LoadedModel
from homeostat.model_runtime.loading import load
from homeostat.model_runtime.placement import placement_of
from homeostat.records import ModelSpec, VersionRef
from homeostat.registry.cache import entry_path, read_spec, verify
from homeostat.settings import Settings
from serving.versions.fetching import fetch
from serving.versions.tries import Tries

log = logging.getLogger(__name__)


async def make_present(
    settings: Settings, ref: VersionRef, tries: Tries, still: Callable[[], None]
) -> None:
    """Fetch the version by a helper process unless the cache holds it. `still`: raises once nobody
    wants it any more, which ends the helper.

    The helper leaves a sound entry as it is and replaces a harmed one.
    """
    try:
        if not tries.fetch_anew:
            read_spec(entry_path(settings.cache_path, settings.model.name, ref.version))
            return
    except (NotReady, IntegrityError):
        pass
    tries.fetch_anew = False
    log.info("%s: version %s is being fetched", settings.model.name, ref.version)
    await fetch(settings, ref.version, still)


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
