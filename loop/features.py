"""The names of the features, where a tensor's elements have none of their own."""

from __future__ import annotations

from homeostat.settings import Settings


def feature_names(settings: Settings) -> tuple[str, ...]:
    """In the model's order: as the settings say, else the training data's columns."""
    model = settings.model
    if model.features or model.training_data is None:
        return model.features
    return tuple(name for name in _columns(settings) if name != model.target)


def _columns(settings: Settings) -> tuple[str, ...]:
    path = settings.model.training_data
    assert path is not None
    if path.suffix == ".csv":
        with path.open(encoding="utf-8") as file:
            return tuple(name.strip().strip('"') for name in file.readline().split(","))
    from pyarrow import parquet  # only the loop pays for it

    return tuple(parquet.read_schema(path).names)
