"""Rows deleted by a predicate, beside writers that go on appending."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake
from deltalake.exceptions import CommitFailedError

from homeostat.errors import JournalUnavailable
from homeostat.journal.delta.tables import TableRef, open_table, reaching, sync_since
from homeostat.journal.keeping.compaction import TARGET, WRITTEN

ATTEMPTS = 20  # of a deletion that others were faster than


def drop_days(table: TableRef, before: str) -> None:
    """Delete whole days, which rewrites nothing. Raises JournalUnavailable."""
    _repeated(table, lambda handle: handle.delete(f"date < '{before}'"))


def delete(table: TableRef, predicate: str) -> None:
    """Delete rows by an SQL predicate. Raises JournalUnavailable.

    A predicate on a time keeps clear of what is appended meanwhile: without one, every commit of a
    writer to the same day makes the deletion begin again.
    """

    def overwrite(handle: Any) -> None:
        # delta-rs's own deletion writes text in a type whose row groups Arrow cannot skip by, and
        # its readers fail; what is overwritten with nothing keeps the table's types.
        nothing = pa.schema(handle.schema().to_arrow()).empty_table()
        write_deltalake(
            handle,
            nothing,
            mode="overwrite",
            predicate=predicate,
            target_file_size=TARGET,
            writer_properties=WRITTEN,
        )

    _repeated(table, overwrite)


def timestamp(moment: datetime) -> str:
    """As SQL, in the type of our columns: any other cannot be compared with them."""
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return f"arrow_cast('{text}', 'Timestamp(Microsecond, Some(\"UTC\"))')"


def one_of(column: str, values: Sequence[str]) -> str:
    """As SQL: quotes are the only thing that has to be escaped."""
    quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{column} IN ({quoted})"


def _repeated(table: TableRef, deletion: Callable[[Any], Any]) -> None:
    for attempt in range(ATTEMPTS):
        handle = open_table(table)
        if handle is None:
            return
        with reaching(table):
            try:
                before = handle.version()
                deletion(handle)
                sync_since(table, handle, before)  # or the files it replaced may go before it
                return
            except CommitFailedError:
                time.sleep(0.05 * attempt)
    raise JournalUnavailable(f"{table.url}: others were faster {ATTEMPTS} times in a row")
