"""The description of a version that serves or served: from the cache, else fetched once more."""

from __future__ import annotations

from homeostat.errors import NotReady
from homeostat.records import ModelSpec
from homeostat.registry import cache
from homeostat.registry.feature_names import feature_names
from loop.context import Context


def champion_spec(context: Context, version: str) -> ModelSpec:
    """Raises RegistryUnavailable when the cache lost it and MLflow is away."""
    entry = cache.entry_path(context.settings.cache_path, context.model, version)
    try:
        return cache.read_spec(entry)
    except NotReady:
        names = feature_names(context.settings)
        context.reach("mlflow", lambda: context.registry.fetch(version, feature_names=names))
        return cache.read_spec(entry)
