"""A Delta table's own log: how long it remembers, and that opening the table stays quick."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake.exceptions import CommitFailedError

from homeostat.jobs import write_atomically
from homeostat.journal.delta import disk_sync, storage
from homeostat.journal.delta.tables import TableRef, configuration, open_table, reaching, sync_since

logger = logging.getLogger(__name__)

LOG, CHECKPOINT = "_delta_log", ".checkpoint"
LOG_KEPT = timedelta(days=1)  # nobody travels in time; a writer or reader is done within minutes
# Of files that were imported, which are many: writers' versions have no date, and stay.
DATED_VERSIONS_KEPT = timedelta(days=90)
TOMBSTONES_KEPT = timedelta(days=2)  # longer than replaced files stay, or a vacuum misses them


def settle(table: TableRef, *, keep_deleted: timedelta) -> bool:
    """Have the table's properties as we want them; whether anything had to be changed."""
    handle = open_table(table)
    if handle is None:
        return False
    wanted = configuration(table) | {
        "delta.logRetentionDuration": _interval(LOG_KEPT),
        "delta.deletedFileRetentionDuration": _interval(keep_deleted + TOMBSTONES_KEPT),
        "delta.setTransactionRetentionDuration": _interval(DATED_VERSIONS_KEPT),
    }
    with reaching(table):
        had = handle.metadata().configuration
        if all(had.get(name) == value for name, value in wanted.items()):
            return False
        before = handle.version()
        try:
            handle.alter.set_table_properties(wanted)
            sync_since(table, handle, before)
        except CommitFailedError:
            return False  # next time: nothing depends on it
    return True


def tidy_log(table: TableRef) -> None:
    """Sum up the log in a checkpoint and drop entries that are a day old. Writers' versions are
    part of the checkpoint."""
    handle = open_table(table)
    if handle is None:
        return
    with reaching(table):
        _sum_up(table, handle)
        handle.cleanup_metadata()


def scrub(table: TableRef) -> None:
    """Take out of the log what it still tells of rows that are gone: the least and the most of
    files that are no more, and what deletions were asked for.

    Entries are rewritten in their place and not removed: a writer that read the table before finds
    their numbers taken, as it must. Raises JournalUnavailable.
    """
    handle = open_table(table)
    if handle is None:
        return
    with reaching(table):
        files = storage.filesystem(table.url)
        live = set(pa.table(handle.get_add_actions())["path"].to_pylist())
        for name in entries(files):
            if name.endswith(".json") and int(name[:20]) <= handle.version():
                _scrub_entry(table, files, name, live)
        summed_up = open_table(table) or handle
        _sum_up(table, summed_up)
        for name in entries(files):
            if CHECKPOINT in name and int(name[:20]) < summed_up.version():
                files.delete_file(f"{LOG}/{name}")


def entries(files: Any) -> list[str]:
    """The files of a log, in order, as numbered by the table's versions."""
    found = files.get_file_info(pafs.FileSelector(LOG, allow_not_found=True))
    return sorted(info.base_name for info in found if info.base_name[:20].isdigit())


def _sum_up(table: TableRef, handle: Any) -> None:
    """A checkpoint that a power loss leaves whole: what it stands for is deleted next."""
    handle.create_checkpoint()
    if table.local is not None:
        disk_sync.sync_checkpoint(table.local)


def _scrub_entry(table: TableRef, files: Any, name: str, live: set[str]) -> None:
    with files.open_input_stream(f"{LOG}/{name}") as stream:
        before = stream.read()
    lines = [json.loads(line) for line in before.splitlines()]
    changed = False
    for line in lines:
        asked = line.get("commitInfo", {}).get("operationParameters", {})
        if "predicate" in asked:
            del asked["predicate"]
            changed = True
        if "stats" in line.get("add", {}) and line["add"]["path"] not in live:
            del line["add"]["stats"]
            changed = True
    if not changed:
        return
    after = b"\n".join(json.dumps(line, separators=(",", ":")).encode() for line in lines)
    if table.local is not None:
        write_atomically(table.local / LOG / name, after)
        return
    with files.open_output_stream(f"{LOG}/{name}") as stream:
        stream.write(after)


def _interval(duration: timedelta) -> str:
    return f"interval {int(duration.total_seconds())} seconds"
