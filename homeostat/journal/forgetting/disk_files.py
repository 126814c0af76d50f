"""Every data file in a table's folder: those the table consists of, and those it did once.

A replaced file stays for a day, for those who are reading it, and a commit that was cut off leaves
a file that was never part of the table. What is to be forgotten has to be gone from these too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from homeostat.errors import JournalUnavailable
from homeostat.journal.delta import storage
from homeostat.journal.delta.files import Progress
from homeostat.journal.delta.table_log import LOG
from homeostat.journal.delta.tables import TableRef, open_table, reaching

logger = logging.getLogger(__name__)

LOOK_AGAIN = 2.0  # seconds


@dataclass(frozen=True, kw_only=True)
class DiskFile:
    path: str  # below the table's folder
    bytes: int
    written_at: datetime


@dataclass(frozen=True, kw_only=True)
class Removed:
    files: int = 0
    bytes: int = 0


def files_on_disk(table: TableRef) -> tuple[DiskFile, ...]:
    """Raises JournalUnavailable."""
    with reaching(table):
        selector = pafs.FileSelector("", recursive=True, allow_not_found=True)
        try:
            found = storage.filesystem(table.url).get_file_info(selector)
        except FileNotFoundError:
            return ()
    return tuple(
        DiskFile(path=info.path, bytes=info.size or 0, written_at=info.mtime.astimezone(UTC))
        for info in found
        if info.type is pafs.FileType.File
        and info.path.endswith(".parquet")
        and not info.path.startswith(LOG)
    )


def rows_in(table: TableRef, path: str, schema: Any, where: Any) -> Any | None:
    """The rows of one file for which `where` holds, in the columns of a schema (null where it has
    none); None where nobody can read it: it was cut off, or is being written."""
    files = storage.filesystem(table.url)
    try:
        # Not in the file's own types: what a deletion rewrites comes in others.
        dataset = pads.dataset(path, schema=schema, filesystem=files, format="parquet")
        return dataset.to_table(filter=where)
    except FileNotFoundError:
        return schema.empty_table()
    except (pa.ArrowInvalid, OSError) as problem:
        logger.info("%s/%s cannot be read: %s", table.url, path, problem)
        return None


def remove_dead(
    table: TableRef,
    holds: Callable[[str], bool],
    *,
    unfinished: timedelta,
    clock: Callable[[], datetime],
    progress: Progress,
) -> Removed:
    """Remove the files that are no part of the table and of which `holds` is true.

    A file without any commit may be one that is about to be committed: it is waited for until it
    is as old as `unfinished`. Raises JournalUnavailable.
    """
    judged: dict[str, bool] = {}
    removed = removed_bytes = 0
    while True:
        found = files_on_disk(table)
        live, replaced = _known(table)
        dead = [file for file in found if file.path not in live]
        for done, file in enumerate(dead):
            if file.path not in judged:
                progress("looking through replaced files", done, len(dead))
                judged[file.path] = holds(file.path)
        doomed = [file for file in dead if judged[file.path]]
        ripe = [f for f in doomed if f.path in replaced or clock() - f.written_at >= unfinished]
        for file in ripe:
            _remove(table, file.path)
        removed, removed_bytes = removed + len(ripe), removed_bytes + sum(f.bytes for f in ripe)
        if len(ripe) == len(doomed):
            return Removed(files=removed, bytes=removed_bytes)
        progress("waiting for a commit that may be under way", 0, 1)
        time.sleep(LOOK_AGAIN)


def _known(table: TableRef) -> tuple[set[str], set[str]]:
    """Files the table consists of, and those it did."""
    handle = open_table(table)
    if handle is None:
        return set(), set()
    with reaching(table):
        live = set(pa.table(handle.get_add_actions())["path"].to_pylist())
        replaced = handle.vacuum(retention_hours=0, dry_run=True, enforce_retention_duration=False)
    return {unquote(path) for path in live}, {unquote(path) for path in replaced}


def _remove(table: TableRef, path: str) -> None:
    try:
        storage.filesystem(table.url).delete_file(path)
    except FileNotFoundError:
        return
    except OSError as problem:
        raise JournalUnavailable(f"{table.url}/{path} cannot be removed: {problem}") from problem
