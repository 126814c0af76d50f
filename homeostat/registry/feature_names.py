"""Names for the elements of a tensor: the training data's columns, as the settings say."""

from __future__ import annotations

import csv
from pathlib import Path

from homeostat.errors import SettingsError
from homeostat.settings import FILE_NAME, Settings


def feature_names(settings: Settings) -> tuple[str, ...]:
    """[model] features, or the training data's columns but the target; empty without either."""
    model = settings.model
    if model.features or model.training_data is None:
        return model.features
    return tuple(name for name in column_names(model.training_data) if name != model.target)


def column_names(file: Path) -> tuple[str, ...]:
    """The columns of a Parquet or CSV file, without reading its rows."""
    try:
        if file.suffix.lower() == ".csv":
            with file.open(newline="") as lines:
                return tuple(next(csv.reader(lines), ()))
        import pyarrow.parquet as parquet

        return tuple(parquet.read_schema(file).names)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{file} cannot be read as Parquet or CSV: {error}",
            file=FILE_NAME,
            key="model.training_data",
        ) from error
