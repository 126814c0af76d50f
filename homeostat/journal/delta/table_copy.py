"""The files that make up one version of a table, so that a copy of them is that table.

Delta's files never change: a version is what its log names, and the log up to it. Whoever reads it
needs either every log entry, or a checkpoint and the entries after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs

from homeostat.errors import JournalUnavailable
from homeostat.journal.delta import storage, table_log
from homeostat.journal.delta.tables import TableRef, open_table, reaching

LOG = "_delta_log"
PIECE = 1 << 20  # bytes
MOST = 10**20  # no version has such a number
ATTEMPTS = 5  # where the log is tidied while it is looked at
_ENTRY = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(?:\.\d{10}\.(\d{10}))?\.parquet")


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """One version of a table. `as_written` says in which order a copy is made."""

    id: str  # given to the table at its birth, and kept by its copies
    version: int
    files: Mapping[str, int]  # sizes, by place below the table's folder: data, then the log


def pin(table: TableRef) -> Pinned | None:
    """The newest version; None while no row was ever stored. Raises JournalUnavailable."""
    for _ in range(ATTEMPTS):
        handle = open_table(table)
        if handle is None:
            return None
        with reaching(table):
            added = pa.table(handle.get_add_actions(flatten=True))
            there = _log_files(table)
            log = needed(list(there), handle.version())
            if log is not None:
                data = map(unquote, added["path"].to_pylist())
                files = dict(zip(data, added["size_bytes"].to_pylist(), strict=True))
                files |= {f"{LOG}/{name}": there[name] for name in log}
                return Pinned(id=str(handle.metadata().id), version=handle.version(), files=files)
    raise JournalUnavailable(
        f"the log of the table {table.url} lacks entries that its newest version needs; "
        "was it changed by another program?"
    )


def needed(names: Sequence[str], version: int) -> list[str] | None:
    """The log's files from which a version can be read, in the order to write them; None where
    some are missing."""
    entries = {int(found[1]): name for name in names if (found := _ENTRY.fullmatch(name))}
    for start in (*_checkpoints(names, version), -1):
        numbers = range(start + 1, version + 1)
        if all(number in entries for number in numbers):
            first = [name for name in sorted(names) if start >= 0 and _of(name, start)]
            return [*first, *(entries[number] for number in numbers)]
    return None


def as_written(files: Sequence[str]) -> list[str]:
    """The order in which a copy shows nothing before it is whole: the data, then the log from its
    end, since without its first entry or its checkpoint there is no table."""
    log = [path for path in files if path.startswith(f"{LOG}/")]
    return [path for path in files if not path.startswith(f"{LOG}/")] + log[::-1]


def log_of(table: TableRef) -> tuple[str, ...]:
    """The log's files that are there, by place below the table's folder."""
    with reaching(table):
        return tuple(f"{LOG}/{name}" for name in table_log.entries(storage.filesystem(table.url)))


def standing(table: TableRef) -> tuple[str, int] | None:
    """Id and version of the table that is there; None also for a copy that was cut off."""
    with reaching(table):
        try:
            names = table_log.entries(storage.filesystem(table.url))
        except FileNotFoundError:  # not even its folder
            return None
    if not (_checkpoints(names, MOST) or any(name == f"{0:020d}.json" for name in names)):
        return None
    handle = open_table(table)
    if handle is None:
        return None
    with reaching(table):
        return str(handle.metadata().id), int(handle.version())


def read(table: TableRef, path: str) -> Iterator[bytes]:
    """A file, piece by piece. Raises FileNotFoundError where it is gone, JournalUnavailable where
    the store is."""
    try:
        with reaching(table):
            store = storage.filesystem(table.url)
            with store.open_input_stream(path, compression=None) as data:
                while piece := data.read(PIECE):
                    yield piece
    except JournalUnavailable as problem:
        if isinstance(problem.__cause__, FileNotFoundError):
            raise problem.__cause__ from None
        raise


def write(table: TableRef, path: str, pieces: Iterable[bytes]) -> None:
    """Create a file of a table that is being copied to here: whole, or not there."""
    with reaching(table):
        if table.local is not None:
            (table.local / path).parent.mkdir(parents=True, exist_ok=True)
        under = path if table.local is None else f"{path}.part"  # a store shows no half of one
        out = storage.filesystem(table.url).open_output_stream(under, compression=None)
    with out:
        for piece in pieces:
            with reaching(table):
                out.write(piece)
    if table.local is not None:
        (table.local / under).replace(table.local / path)


def _checkpoints(names: Sequence[str], version: int) -> list[int]:
    """Versions that have a whole checkpoint, newest first."""
    parts: dict[int, list[int]] = {}
    for name in names:
        if found := _CHECKPOINT.fullmatch(name):
            parts.setdefault(int(found[1]), []).append(int(found[2] or 1))
    whole = [number for number, of in parts.items() if len(of) == max(of) and number <= version]
    return sorted(whole, reverse=True)


def _of(name: str, number: int) -> bool:
    found = _CHECKPOINT.fullmatch(name)
    return found is not None and int(found[1]) == number


def _log_files(table: TableRef) -> dict[str, int]:
    listed: Any = storage.filesystem(table.url).get_file_info(pafs.FileSelector(LOG))
    return {info.base_name: info.size for info in listed}
