"""The Delta tables: where they lie, and the one way rows are committed to them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from homeostat.errors import HomeostatError, JournalUnavailable
from homeostat.journal import arrays
from homeostat.journal.encoding import LABEL_SCHEMA, prediction_fields
from homeostat.journal.segments import sync_folder
from homeostat.records import Task

ATTEMPTS = 20  # of a commit that other writers were faster than


class Unstorable(HomeostatError):
    """Rows that do not fit the table's columns, whatever is tried."""


@dataclass(frozen=True, kw_only=True)
class TableRef:
    """A table by its place; it is created with these columns when the first rows come."""

    url: str
    schema: Any
    partition_by: tuple[str, ...] = ()

    @property
    def local(self) -> Path | None:
        """None on an object store."""
        if self.url.startswith("file://"):
            return Path(unquote(self.url.removeprefix("file://")))
        return None if "://" in self.url else Path(self.url)


def predictions(url: str, model: str, task: Task) -> TableRef:
    schema = pa.schema([*prediction_fields(task), pa.field("date", pa.string())])
    return TableRef(url=_place(url, model, "predictions"), schema=schema, partition_by=("date",))


def labels(url: str, model: str) -> TableRef:
    """By the day of arrival: a label never comes before its prediction."""
    schema = LABEL_SCHEMA.append(pa.field("date", pa.string()))
    return TableRef(url=_place(url, model, "labels"), schema=schema, partition_by=("date",))


def quarantine(url: str, model: str) -> TableRef:
    """A history: of each key and id, the row with the largest ordinal says how it stands."""
    schema = pa.schema(
        [
            pa.field("prediction_id", pa.string()),
            pa.field("key", pa.string()),
            pa.field("reason", pa.string()),
            pa.field("time", arrays.TIME),
            pa.field("released", pa.bool_()),
            pa.field("ordinal", pa.int64()),
        ]
    )
    return TableRef(url=_place(url, model, "quarantine"), schema=schema)


def with_date(table: Any, time_column: str) -> Any:
    """Add the partition column: the UTC day of a time."""
    return table.append_column("date", pc.strftime(table[time_column], format="%Y-%m-%d"))


@contextmanager
def reaching(table: TableRef) -> Iterator[None]:
    """What goes wrong with the storage inside is a JournalUnavailable."""
    try:
        yield
    except (DeltaError, OSError) as problem:
        raise JournalUnavailable(
            f"the journal's table {table.url} does not answer: {problem}"
        ) from problem


def open_table(table: TableRef) -> Any | None:
    """A fresh handle; None while no row was ever stored. Raises JournalUnavailable."""
    with reaching(table):
        try:
            return DeltaTable(table.url)
        except TableNotFoundError:
            return None


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
                handle = _opened(table)
                done = handle.transaction_version(app_id)
                if done is not None and version <= done:
                    return False
                _write(table, handle, data, Transaction(app_id, version))
                return True
            except CommitFailedError:
                time.sleep(0.01 * attempt)  # another writer was faster: read again
    raise JournalUnavailable(f"{table.url}: other writers were faster {ATTEMPTS} times in a row")


def _place(url: str, model: str, name: str) -> str:
    return f"{url.rstrip('/')}/{model}/{name}"


def _opened(table: TableRef) -> Any:
    try:
        return DeltaTable(table.url)
    except TableNotFoundError:
        if table.local is not None:
            table.local.mkdir(parents=True, exist_ok=True)
        partition_by = list(table.partition_by) or None
        return DeltaTable.create(table.url, table.schema, mode="ignore", partition_by=partition_by)


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
        _sync(table.local, before + 1, handle.version())


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


def _sync(folder: Path, first: int, last: int) -> None:
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
