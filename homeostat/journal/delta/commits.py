"""The one way rows are committed to a Delta table: each writer's versions once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
from deltalake import (
    ColumnProperties,
    CommitProperties,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError

from homeostat.errors import HomeostatError, JournalUnavailable
from homeostat.journal.delta.tables import (
    TableRef,
    open_or_create,
    open_table,
    reaching,
    sync_since,
)

# Old entries of the log go with the upkeep: after each commit, to look through a day of them takes
# as long as the commit.
_AFTER_COMMIT = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
# Dictionaries of vectors and ids only cost time: hardly a value comes twice.
_VECTOR = ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE")
_ID = ColumnProperties(dictionary_enabled=False, statistics_enabled="CHUNK")
_OTHER = ColumnProperties(dictionary_enabled=True, statistics_enabled="CHUNK")
ATTEMPTS = 20  # of a commit that other writers were faster than


@dataclass(frozen=True)
class Chosen:
    """Rows with at least the table's columns, and the version they are committed under."""

    rows: Any
    version: int


class NotWritten(JournalUnavailable):
    """The table could be opened, and then the commit failed: it may have left a data file."""


class Unstorable(HomeostatError):
    """Rows that do not fit the table's columns, whatever is tried."""


def committed(table: TableRef, app_id: str) -> int:
    """The newest version of a writer that the table holds; -1 for none."""
    handle = open_table(table)
    version = None if handle is None else handle.transaction_version(app_id)
    return -1 if version is None else version


def commit(
    table: TableRef, data: Any, *, app_id: str, version: int, dated: datetime | None = None
) -> bool:
    """Store rows once: False when this writer's version is there already. A version that is
    `dated` is forgotten some time after, as the table's properties say; any other never is. Raises
    JournalUnavailable or Unstorable."""

    def choose(taken: int, schema: Any) -> Chosen | None:
        return None if version <= taken else Chosen(fit(data, schema), version)

    return commit_what(table, choose, app_id=app_id, dated=dated)


def commit_what(
    table: TableRef,
    choose: Callable[[int, Any], Chosen | None],
    *,
    app_id: str,
    dated: datetime | None = None,
) -> bool:
    """Commit what `choose` makes of the writer's newest version in the table (-1 for none) and
    of the table's columns; False when that is None.

    delta-rs lets the same transaction be written twice, unless both were read from the same state
    of the table; hence a fresh handle for each try, through which the commit then goes. After any
    failure, call it again: whatever became of the commit, the version says. (A handle that is
    kept and updated is no faster: after 2,000 commits it took three times the CPU of a fresh one
    for each further commit, and grew by 0.15 MB with each.)
    """
    updated = None if dated is None else int(dated.timestamp() * 1000)
    for attempt in range(ATTEMPTS):
        writing = False
        try:
            with reaching(table):
                handle = open_or_create(table)
                done = handle.transaction_version(app_id)
                schema = pa.schema(handle.schema().to_arrow())
            chosen = choose(-1 if done is None else done, schema)
            if chosen is None:
                return False
            writing = True
            with reaching(table):
                wider = len(chosen.rows.schema) > len(schema)
                transaction = Transaction(app_id, chosen.version, updated)
                _write(table, handle, chosen.rows, transaction, wider)
            return True
        except JournalUnavailable as problem:
            if isinstance(problem.__cause__, CommitFailedError):
                time.sleep(0.01 * attempt)  # another writer was faster: read again
            elif writing:
                raise NotWritten(str(problem)) from problem
            else:
                raise
    raise NotWritten(f"{table.url}: other writers were faster {ATTEMPTS} times in a row")


def _parquet(schema: Any) -> WriterProperties:
    """By name are told the columns that are no vectors: what lies inside a list cannot be, since
    delta-rs takes a path for one long name."""
    scalar = [field.name for field in schema if not pa.types.is_list(field.type)]
    return WriterProperties(
        compression="SNAPPY",
        default_column_properties=_VECTOR,
        column_properties=dict.fromkeys(scalar, _OTHER) | {"prediction_id": _ID},
    )


def _write(table: TableRef, handle: Any, rows: Any, transaction: Transaction, wider: bool) -> None:
    before = handle.version()
    write_deltalake(
        handle,
        rows.combine_chunks(),
        mode="append",
        schema_mode="merge" if wider else None,
        writer_properties=_parquet(rows.schema),
        commit_properties=CommitProperties(app_transactions=[transaction]),
        post_commithook_properties=_AFTER_COMMIT,
    )
    sync_since(table, handle, before)


def fit(data: Any, schema: Any) -> Any:
    """Rows with the table's columns in its order and types, new columns last. Unstorable, where
    a column's values have no place in the table's."""
    columns = []
    for field in schema:
        at = data.schema.get_field_index(field.name)
        columns.append(pa.nulls(data.num_rows, field.type) if at < 0 else _cast(data, field))
    for field in data.schema:
        if schema.get_field_index(field.name) < 0:
            schema = schema.append(field)
            columns.append(data[field.name])
    return pa.table(columns, schema=schema)


def _cast(data: Any, field: Any) -> Any:
    column = data[field.name]
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid as problem:
        raise Unstorable(
            f"column {field.name} holds {field.type}, and cannot take {column.type}: {problem}"
        ) from problem
