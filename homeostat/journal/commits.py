"""The one way rows are committed to a Delta table: each writer's versions once."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from homeostat.errors import HomeostatError, JournalUnavailable
from homeostat.journal.segments import sync_folder
from homeostat.journal.tables import TableRef, open_or_create, open_table, reaching

ATTEMPTS = 20  # of a commit that other writers were faster than


class Unstorable(HomeostatError):
    """Rows that do not fit the table's columns, whatever is tried."""


def committed(table: TableRef, app_id: str) -> int:
    """The newest version of a writer that the table holds; -1 for none."""
    handle = open_table(table)
    version = None if handle is None else handle.transaction_version(app_id)
    return -1 if version is None else version


def commit(table: TableRef, data: Any, *, app_id: str, version: int) -> bool:
    """Store rows once: False when this writer's version is there already.

    delta-rs lets the same transaction be written twice, unless both were read from the same state
    of the table; hence the fresh handle, through which the commit then goes. Raises
    JournalUnavailable or Unstorable.
    """
    for attempt in range(ATTEMPTS):
        with reaching(table):
            try:
                handle = open_or_create(table)
                done = handle.transaction_version(app_id)
                if done is not None and version <= done:
                    return False
                _write(table, handle, data, Transaction(app_id, version))
                return True
            except CommitFailedError:
                time.sleep(0.01 * attempt)  # another writer was faster: read again
    raise JournalUnavailable(f"{table.url}: other writers were faster {ATTEMPTS} times in a row")


def _write(table: TableRef, handle: Any, data: Any, transaction: Transaction) -> None:
    before = handle.version()
    fitted, wider = _fit(data, pa.schema(handle.schema().to_arrow()))
    write_deltalake(
        handle,
        fitted.combine_chunks(),
        mode="append",
        schema_mode="merge" if wider else None,
        commit_properties=CommitProperties(app_transactions=[transaction]),
    )
    if table.local is not None:
        sync_commits(table.local, before + 1, handle.version())


def _fit(data: Any, schema: Any) -> tuple[Any, bool]:
    """Rows with the table's columns in its order and types, new columns last."""
    columns = []
    for field in schema:
        at = data.schema.get_field_index(field.name)
        columns.append(pa.nulls(data.num_rows, field.type) if at < 0 else _cast(data, field))
    new = [field for field in data.schema if schema.get_field_index(field.name) < 0]
    for field in new:
        schema = schema.append(field)
        columns.append(data[field.name])
    return pa.table(columns, schema=schema), bool(new)


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


def sync_commits(folder: Path, first: int, last: int) -> None:
    """Force commits to the disk: delta-rs leaves them to the kernel, and a power loss may undo
    them after the spool that could repair it is gone."""
    log = folder / "_delta_log"
    parents = {log}
    for version in range(first, last + 1):
        entry = log / f"{version:020d}.json"
        for line in entry.read_text().splitlines():
            added = json.loads(line).get("add")
            if added is not None:
                file = folder / unquote(added["path"])
                parents.add(file.parent)
                _sync_file(file)
        _sync_file(entry)
    for parent in (*parents, folder):
        sync_folder(parent)


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
