"""Which rows of the log a file was made of, so that a person's request to be forgotten reaches it.

Beside train.parquet lies train.ids.parquet: one row for each of its rows, in their order, with the
row's prediction_id (null where it is no row of the log) and the caller's key (null where it has
none). A mark in both says that they belong together, so that a kill between the two writes is
noticed: the trace under the name of the next one is the file's then.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from homeostat.errors import IntegrityError
from homeostat.identifiers import uuid7

SCHEMA = pa.schema([pa.field("prediction_id", pa.string()), pa.field("key", pa.string())])
MARK = b"homeostat.trace"


def trace_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}.ids.parquet")


def write_traced(path: Path, table: Any, ids: Any, keys: Any) -> None:
    """Write a file and its trace. Ids and keys: Arrow arrays, or sequences, of one text or None a
    row."""
    mark = uuid7().encode()
    _write(_next(path), _marked(_trace(ids, keys), mark))
    _write(path, _marked(table, mark))
    _finish(path)


def traced(folder: Path) -> list[Path]:
    """Files below a folder that have a trace."""
    found = {
        trace.with_name(trace.name.removesuffix(ending) + ".parquet")
        for ending in (".ids.parquet", ".ids.next")
        for trace in folder.rglob(f"*{ending}")
    }
    return sorted(path for path in found if path.exists())


def read_trace(path: Path) -> Any:
    """Two columns, one row a row of the file; all null where the file has no trace. Raises
    IntegrityError where its trace is another file's.

    Nothing is changed, since somebody may be writing both just now.
    """
    while True:
        about = pq.read_metadata(path)
        mark = (about.metadata or {}).get(MARK)
        for found in map(_read, (_next(path), trace_path(path))):  # as they are renamed
            if found is not None and (found.num_rows, _of(found)) == (about.num_rows, mark):
                return found.select(SCHEMA.names).cast(SCHEMA)
        if not trace_path(path).exists():
            return pa.table([pa.nulls(about.num_rows, pa.string())] * 2, schema=SCHEMA)
        if _mark(path) == mark:
            break  # else it was written anew between the two looks
    raise IntegrityError(
        f"{path} was changed by another program, so that {trace_path(path).name} does not say any "
        "more which rows are whose: delete both, or put the file back"
    )


def without(path: Path, *, ids: Collection[str] = (), keys: Collection[str] = ()) -> int:
    """Rewrite a file without the rows that have one of these ids or keys; how many those were."""
    if not (trace_path(path).exists() or _next(path).exists()):
        return 0
    trace = read_trace(path)
    gone = np.zeros(trace.num_rows, dtype=bool)
    for name, wanted in (("prediction_id", ids), ("key", keys)):
        named = pc.is_in(trace[name], value_set=pa.array(sorted(wanted), pa.string()))
        gone |= named.combine_chunks().to_numpy(zero_copy_only=False)
    if gone.any():
        kept = trace.filter(pa.array(~gone))
        left = pq.read_table(path).filter(pa.array(~gone))
        write_traced(path, left, kept["prediction_id"], kept["key"])
    return int(gone.sum())


def _trace(ids: Any, keys: Any) -> Any:
    return pa.table([pa.array(_plain(given), pa.string()) for given in (ids, keys)], schema=SCHEMA)


def _plain(given: Any) -> Any:
    return given.combine_chunks() if isinstance(given, pa.ChunkedArray) else given


def _next(path: Path) -> Path:
    return path.with_name(f"{path.stem}.ids.next")


def _finish(path: Path) -> None:
    """The new trace is the file's own now that the file is the new one. Only for writers; killed
    before, it is found by its mark where it is."""
    _next(path).replace(trace_path(path))


def _marked(table: Any, mark: bytes | None) -> Any:
    known = dict(table.schema.metadata or {})
    known.pop(MARK, None)
    return table.replace_schema_metadata(known | ({} if mark is None else {MARK: mark}))


def _mark(path: Path) -> bytes | None:
    if not path.exists():
        return None
    mark: bytes | None = (pq.read_schema(path).metadata or {}).get(MARK)
    return mark


def _of(table: Any) -> bytes | None:
    mark: bytes | None = (table.schema.metadata or {}).get(MARK)
    return mark


def _read(path: Path) -> Any | None:
    """None where it is not there, or no more."""
    try:
        with pq.ParquetFile(path) as file:  # opened once: it may be replaced meanwhile
            return file.read()
    except FileNotFoundError:
        return None


def _write(path: Path, table: Any) -> None:
    """All of it or nothing, even when the power goes."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    pq.write_table(table, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
