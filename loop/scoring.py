"""Which version a batch run uses, and that it is in the cache."""

from __future__ import annotations

from collections.abc import Callable

from homeostat.errors import NotReady
from homeostat.records import Rollout, VersionRef, from_json
from homeostat.registry import cache
from homeostat.settings import Settings
from homeostat.state import rollouts
from homeostat.state.store import open_state


def champion(settings: Settings) -> VersionRef:
    """By the record that servers follow, else by the state; raises NotReady without one."""
    name = settings.model.name
    if settings.rollout_path.exists():
        return from_json(settings.rollout_path.read_bytes(), Rollout).champion
    state = open_state(settings.state_url)
    try:
        with state.begin() as tx:
            found = rollouts.current(tx, name)
    finally:
        state.close()
    if found is None:
        raise NotReady(
            f"no version of {name} was promoted yet; name one by --version, or promote one"
        )
    return found.champion


def in_cache(
    settings: Settings,
    version: str,
    ref: VersionRef | None,
    feature_names: Callable[[], tuple[str, ...]],
) -> VersionRef:
    """The version and its digest, fetched where it is not there. `ref` is what a rollout says of
    it, which holds against whatever the cache has."""
    entry = cache.entry_path(settings.cache_path, settings.model.name, version)
    try:
        found = VersionRef(version=version, digest=cache.digest_of(cache.read_spec(entry)))
    except NotReady:
        from homeostat.registry.mlflow_registry import Registry  # takes seconds to import

        found = Registry(settings).fetch(version, feature_names=feature_names())
    return ref or found
