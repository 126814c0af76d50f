"""Which model a path means, where it has no door of its own: mostly none that is served here."""

from __future__ import annotations

from collections.abc import Mapping

from serving.requests.problem import Refused
from serving.versions.served_model import ServedModel


class NoSuchModel(Refused):
    """A name that is not served here, or none where one is needed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=404)


def model_of(models: Mapping[str, ServedModel], name: str) -> ServedModel:
    if name not in models:
        raise NoSuchModel(
            f'no model "{name[:100]}" is served here; those that are: {", ".join(models)}'
        )
    return models[name]


def only_model(models: Mapping[str, ServedModel], verb: str) -> ServedModel:
    """For paths without a name."""
    if len(models) > 1:
        paths = ", ".join(f"/models/{name}/{verb}" for name in models)
        raise NoSuchModel(f"several models are served here; use {paths}")
    return next(iter(models.values()))
