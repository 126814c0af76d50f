"""Who wrote to a table, and when last: the writers' versions in the table's log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.parquet as pq

from homeostat.journal.delta import storage
from homeostat.journal.delta.table_log import LOG, entries
from homeostat.journal.delta.tables import TableRef, reaching
from homeostat.journal.encoding.schema import EPOCH

_CLOCK_FLOOR = 10**15  # versions above are microseconds: a spool numbers its segments by the clock


@dataclass(frozen=True, kw_only=True)
class WriterState:
    writer: str
    version: int
    last_commit: datetime | None  # None: the log does not tell


def writers(table: TableRef) -> tuple[WriterState, ...]:
    """By name. Raises JournalUnavailable."""
    with reaching(table):
        files = storage.filesystem(table.url)
        names = entries(files)
        summed_up = max(
            (name for name in names if name.endswith(".checkpoint.parquet")), default=""
        )
        found = _of_checkpoint(files, summed_up) if summed_up else {}
        for name in sorted(name for name in names if name.endswith(".json")):
            if name > summed_up:
                found |= _of_entry(files, name)
    return tuple(found[name] for name in sorted(found))


def _of_checkpoint(files: Any, name: str) -> dict[str, WriterState]:
    with files.open_input_file(f"{LOG}/{name}") as file:
        column = pq.read_table(file, columns=["txn"])["txn"]
    return {txn["appId"]: _state(txn) for txn in column.drop_null().to_pylist() if txn["appId"]}


def _of_entry(files: Any, name: str) -> dict[str, WriterState]:
    with files.open_input_stream(f"{LOG}/{name}") as stream:
        entries = [json.loads(line) for line in stream.read().splitlines()]
    written = next((e["commitInfo"].get("timestamp") for e in entries if "commitInfo" in e), None)
    found = [entry["txn"] for entry in entries if "txn" in entry]
    return {txn["appId"]: _state({"lastUpdated": written} | txn) for txn in found}


def _state(txn: dict[str, Any]) -> WriterState:
    version, updated = int(txn["version"]), txn.get("lastUpdated")
    at = datetime.fromtimestamp(updated / 1000, UTC) if updated else None
    if at is None and version > _CLOCK_FLOOR:
        at = EPOCH + timedelta(microseconds=version)
    return WriterState(writer=txn["appId"], version=version, last_commit=at)
