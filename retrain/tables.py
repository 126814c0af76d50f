"""Tables in the training data's own columns and types, so that a user's script reads all alike."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from homeostat.errors import NotReady, SettingsError
from homeostat.labels import canonical
from homeostat.settings_of_serving import ModelSettings

logger = logging.getLogger(__name__)

_INDEX = re.compile(r"__index_level_\d+__")  # what pandas writes of an index


def read(path: Path, key: str) -> Any:
    """A Parquet or CSV file as a pyarrow table; raises SettingsError naming the key."""
    try:
        if path.suffix.lower() in (".csv", ".gz"):
            return pa.Table.from_pandas(pd.read_csv(path), preserve_index=False)
        table = pq.read_table(path)
    except FileNotFoundError:
        raise SettingsError(f"there is no file {path}", key=key) from None
    except (pa.ArrowInvalid, ValueError) as error:
        raise SettingsError(f"{path} is neither Parquet nor CSV: {error}", key=key) from None
    keep = [name for name in table.column_names if not _INDEX.fullmatch(name)]
    return table.select(keep).replace_schema_metadata(None)


def feature_columns(columns: Sequence[str], settings: ModelSettings) -> tuple[str, ...]:
    """The training data's columns the model takes, in its order."""
    if settings.target not in columns:
        raise SettingsError(
            f'the training data has no column "{settings.target}"', key="model.target"
        )
    chosen = settings.features or tuple(name for name in columns if name != settings.target)
    missing = [name for name in chosen if name not in columns]
    if missing:
        raise SettingsError(
            f"the training data has no column {', '.join(missing)}", key="model.features"
        )
    return chosen


def target_values(labels: Any, type_: Any, classes: tuple[str, ...]) -> Any:
    """Canonical labels as values of the target's type; null where that cannot be.

    Where the target is a whole number and a label is the name of a class, the number is the
    class's place: that is how networks are trained.
    """
    if pa.types.is_dictionary(type_):
        return target_values(labels, type_.value_type, classes)
    places = {name: place for place, name in enumerate(classes)}
    values = [_value(label, type_, places) for label in labels.to_pylist()]
    return pa.array(values, type_)


def class_names(targets: Any, classes: tuple[str, ...]) -> list[str]:
    """Targets as canonical text ("" for null), and as names where they are classes' places."""
    texts = ["" if value is None else canonical(value) for value in targets.to_pylist()]
    if not classes or set(texts) & set(classes):
        return texts
    names = {str(place): name for place, name in enumerate(classes)}
    return [names.get(text, text) for text in texts]


def conform(table: Any, schema: Any) -> Any:
    """The columns of a schema in its types as far as the values fit; missing ones are null.

    A whole-number column whose new values have fractions becomes a column of fractions.
    """
    columns = {}
    for field in schema:
        if field.name not in table.column_names:
            columns[field.name] = pa.nulls(len(table), _plain(field.type))
            continue
        columns[field.name] = _cast(table[field.name], _plain(field.type))
    return pa.table(columns)


def stack(tables: Sequence[Any], schema: Any) -> Any:
    """Tables one below the other in the schema's order and, where all values allow, its types."""
    plain = [conform(table, schema) for table in tables]
    stacked = pa.concat_tables(plain, promote_options="permissive")
    for place, field in enumerate(schema):
        if pa.types.is_dictionary(field.type):
            column = stacked[field.name].combine_chunks().dictionary_encode()
            stacked = stacked.set_column(place, field.name, column)
    return stacked


def require(table: Any, columns: Sequence[str], what: str) -> None:
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise NotReady(f"{what} lacks the columns {', '.join(missing[:8])}")


def _plain(type_: Any) -> Any:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _cast(column: Any, type_: Any) -> Any:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        return column.cast(type_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if pa.types.is_floating(column.type) and pa.types.is_floating(type_):
            return column.cast(type_, safe=False)
        if pa.types.is_floating(column.type) and pa.types.is_integer(type_):
            return column
        raise NotReady(
            f"values of type {column.type} were logged where the training data has {type_}"
        ) from None


def _value(label: Any, type_: Any, places: dict[str, int]) -> Any:
    if label is None:
        return None
    try:
        if pa.types.is_boolean(type_):
            return {"true": True, "1": True, "false": False, "0": False}[str(label).lower()]
        if pa.types.is_integer(type_):
            return places[label] if label in places and not _whole(label) else int(label)
        if pa.types.is_floating(type_):
            return float(label)
    except (KeyError, ValueError):
        return None
    return canonical(label)


def _whole(label: str) -> bool:
    return label.lstrip("-").isdigit()


def column_arrays(table: Any, names: Sequence[str]) -> dict[str, Any]:
    """Columns as numpy arrays: numbers as numbers, all else as objects."""
    return {name: table[name].combine_chunks().to_numpy(zero_copy_only=False) for name in names}
