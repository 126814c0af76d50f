"""Tables whose rows know which rows of the log they are, from the journal to the file's trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from homeostat.columns import KEY, PREDICTION_ID
from homeostat.journal.forgetting import traces
from retrain import tables

TRACED = (PREDICTION_ID, KEY)


def traced(schema: Any) -> Any:
    """The training data's columns and, beside them, id and key."""
    for name in TRACED:
        schema = schema.append(pa.field(name, pa.string()))
    return schema


def plain(schema: Any) -> Any:
    return pa.schema([field for field in schema if field.name not in TRACED])


def read(path: str, key: str) -> Any:
    """A file that an earlier run wrote; raises SettingsError naming the key."""
    table, trace = tables.read(Path(path), key), traces.read_trace(Path(path))
    for name, column in zip(TRACED, trace.columns, strict=True):
        table = table.append_column(name, column)
    return table


def write(path: Path, table: Any, schema: Any) -> None:
    """The columns of the schema; ids and keys go into the file's trace."""
    ids, keys = (table[name] for name in TRACED)
    traces.write_traced(path, table.select(schema.names), ids, keys)
