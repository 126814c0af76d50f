"""The Delta tables: where they lie, what their columns are, and a fresh handle on each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from homeostat.errors import JournalUnavailable
from homeostat.journal.delta import disk_sync, storage
from homeostat.journal.encoding import arrays
from homeostat.journal.encoding.schema import EPOCH, LABEL_SCHEMA, prediction_fields
from homeostat.records import Task

PARTITIONS = ("model", "date")
DAY = 86_400_000_000  # microseconds
CHECKPOINT_EVERY = "25"  # commits
PREDICTIONS = ("prediction_id", "time", "version", "role", "weight")
LABELS = ("prediction_id", "name", "time", "received")
QUARANTINE = ("prediction_id", "key")


@dataclass(frozen=True, kw_only=True)
class TableRef:
    """A table by its place; it is created with these columns when the first rows come."""

    url: str
    model: str
    schema: Any
    time_column: str  # its days are of this time, and it is sorted by it
    partition_by: tuple[str, ...] = ()
    searched: tuple[str, ...] = ()  # columns whose least and most the log keeps, a file

    @property
    def local(self) -> Path | None:
        """None on an object store."""
        return storage.local_folder(self.url)

    @property
    def options(self) -> dict[str, str] | None:
        """What delta-rs is told of how long this store may take; None for a local folder."""
        return storage.options(self.url)


def predictions(url: str, model: str, task: Task) -> TableRef:
    """The fields of every row; columns of inputs come with the rows."""
    fields = pa.schema(prediction_fields(task))
    return _by_day(url, model, "predictions", fields, "time", PREDICTIONS)


def labels(url: str, model: str) -> TableRef:
    """By the day of arrival: a label never comes before its prediction."""
    return _by_day(url, model, "labels", LABEL_SCHEMA, "received", LABELS)


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
            pa.field("start", arrays.TIME),  # of a range; null where a row names an id
            pa.field("end", arrays.TIME),
            pa.field("version", pa.string()),  # of a range; null: every version
        ]
    )
    place = _place(url, model, "quarantine")
    return TableRef(url=place, model=model, schema=schema, time_column="time", searched=QUARANTINE)


def tables_of(url: str, model: str, task: Task) -> dict[str, TableRef]:
    """By name: all tables of a model."""
    return {
        "predictions": predictions(url, model, task),
        "labels": labels(url, model),
        "quarantine": quarantine(url, model),
    }


def with_partitions(data: Any, table: TableRef) -> Any:
    """Add the partition columns: the model, and the UTC day of the table's time."""
    data = data.append_column("model", arrays.text(table.model, data.num_rows))
    return data.append_column("date", _days(data[table.time_column]))


def _days(times: Any) -> Any:
    """To write one text many times takes a thirtieth of asking each row, and most data is of one
    day."""
    least, most = pc.min_max(times.cast(pa.int64())).as_py().values()
    if least is None or least // DAY != most // DAY:
        return pc.strftime(times, format="%Y-%m-%d")
    return arrays.text((EPOCH + timedelta(microseconds=least)).date().isoformat(), len(times))


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
            return DeltaTable(table.url, storage_options=table.options)
        except TableNotFoundError:
            _look(table)
            return None


def _look(table: TableRef) -> None:
    """Raises OSError for a local folder that may be there, but lets nobody in: delta-rs takes it
    for a table that is not there yet."""
    try:
        for folder in (table.local, table.local and table.local / "_delta_log"):
            if folder is not None:
                os.scandir(folder).close()
    except FileNotFoundError:
        pass


def open_or_create(table: TableRef) -> Any:
    """A fresh handle. Call it inside `reaching`."""
    try:
        return DeltaTable(table.url, storage_options=table.options)
    except TableNotFoundError:
        if table.local is not None:
            disk_sync.make_folder(table.local)
        partition_by = list(table.partition_by) or None
        created = DeltaTable.create(
            table.url,
            table.schema,
            mode="ignore",
            partition_by=partition_by,
            configuration=dict(configuration(table)),
            storage_options=table.options,
        )
        sync_since(table, created, -1)
        return created


def sync_since(table: TableRef, handle: Any, before: int) -> None:
    """Force what was committed through a handle, since that version, to a local disk. Call it
    inside `reaching`."""
    if table.local is not None:
        disk_sync.sync_commits(table.local, before + 1, handle.version())


def configuration(table: TableRef) -> dict[str, str]:
    """Properties that keep a table quick to open, which every commit does.

    Of a hundred columns' least and most, a log of 3,000 files takes 0.3 s to open, each time, and
    what nobody searches by tells nobody anything. Entries since the last checkpoint are read one by
    one: a commit costs a third less CPU than with a checkpoint every 100.
    """
    searched = {"delta.dataSkippingStatsColumns": ",".join(table.searched)}
    return (searched if table.searched else {}) | {"delta.checkpointInterval": CHECKPOINT_EVERY}


def _by_day(
    url: str, model: str, name: str, schema: Any, time_column: str, searched: tuple[str, ...]
) -> TableRef:
    for column in PARTITIONS:
        schema = schema.append(pa.field(column, pa.string()))
    place = _place(url, model, name)
    return TableRef(
        url=place,
        model=model,
        schema=schema,
        time_column=time_column,
        partition_by=PARTITIONS,
        searched=searched,
    )


def _place(url: str, model: str, name: str) -> str:
    storage.check(url)
    return f"{url.rstrip('/')}/{model}/{name}"
