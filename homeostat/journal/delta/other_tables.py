"""Delta tables that are not the log's: what batch scoring reads, and what it writes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from homeostat.errors import InputError, JournalUnavailable, Unavailable
from homeostat.journal.delta import storage
from homeostat.journal.delta.commits import commit
from homeostat.journal.delta.tables import TableRef

_READ = {"timestampNtz", "vacuumProtocolCheck", "v2Checkpoint", "typeWidening"}


@dataclass(frozen=True, kw_only=True)
class TableFile:
    path: str  # relative to the table
    partition: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class TableFiles:
    version: int
    schema: Any
    files: tuple[TableFile, ...]


def table_files(url: str, version: int | None) -> TableFiles:
    """The files of one version of a table, by name; the newest version where none is given."""
    try:
        table = DeltaTable(url, version=version, storage_options=storage.options(url))
        protocol = table.protocol()
        unread = set(protocol.reader_features or ()) - _READ
        if unread:
            raise InputError(
                f"{url} has features that are not read here ({', '.join(sorted(unread))}); "
                "write it anew without them, or hand over Parquet files"
            )
        schema = pa.schema(table.schema().to_arrow())
        actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    except TableNotFoundError as error:
        raise InputError(f"{url} is no Delta table: {error}") from error
    except (DeltaError, OSError) as error:
        raise Unavailable(f"the table {url} does not answer: {error}") from error
    files = [
        TableFile(
            path=unquote(action["path"]),
            partition={
                name.removeprefix("partition."): value
                for name, value in action.items()
                if name.startswith("partition.")
            },
        )
        for action in actions
    ]
    files.sort(key=lambda file: file.path)
    return TableFiles(version=table.version(), schema=schema, files=tuple(files))


def append_once(url: str, rows: Any, *, app_id: str, version: int) -> bool:
    """Append rows to a table, made where there is none; False where the writer's version is in it
    already. Raises Unavailable, and Unstorable where they do not fit the table's columns."""
    table = TableRef(url=url, model="", schema=rows.schema, time_column="")
    try:
        return commit(table, rows, app_id=app_id, version=version)
    except JournalUnavailable as error:
        raise Unavailable(f"the table {url} does not take the answers: {error}") from error
