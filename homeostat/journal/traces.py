"""Which rows of the log a file was made of, so that a person's request to be forgotten reaches it.

Beside train.parquet lies train.ids.parquet: one row for each of its rows, in their order, with the
row's prediction_id (null where it is no row of the log) and the caller's key (null where it has
none). A mark in both says that they belong together, so that a kill between the two writes is
noticed and mended by whoever reads the trace next.
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


def write_trace(path: Path, ids: Any, keys: Any) -> None:
    """Of a file that is there already."""
    _write(trace_path(path), _marked(_trace(ids, keys), _mark(path)))


def read_trace(path: Path) -> Any:
    """Two columns, one row a row of the file; all null where the file has no trace. Raises
    IntegrityError where its trace is another file's."""
    _finish(path)
    trace, rows = trace_path(path), pq.read_metadata(path).num_rows
    if not trace.exists():
        return pa.table([pa.nulls(rows, pa.string())] * 2, schema=SCHEMA)
    found = pq.read_table(trace).select(SCHEMA.names).cast(SCHEMA)
    if found.num_rows != rows or _mark(trace) != _mark(path):
        raise IntegrityError(
            f"{path} was changed by another program, so that {trace.name} does not say any more "
            "which rows are whose: delete both, or put the file back"
        )
    return found


def without(path: Path, *, ids: Collection[str] = (), keys: Collection[str] = ()) -> int:
    """Rewrite a file without the rows that have one of these ids or keys; how many those were."""
    if not trace_path(path).exists():
        _finish(path)
        if not trace_path(path).exists():
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
    """A write that was begun: the new trace is the file's own once the file is the new one."""
    waiting = _next(path)
    if not waiting.exists():
        return
    if path.exists() and _mark(waiting) == _mark(path):
        waiting.replace(trace_path(path))
    else:
        waiting.unlink()


def _marked(table: Any, mark: bytes | None) -> Any:
    known = dict(table.schema.metadata or {})
    known.pop(MARK, None)
    return table.replace_schema_metadata(known | ({} if mark is None else {MARK: mark}))


def _mark(path: Path) -> bytes | None:
    if not path.exists():
        return None
    mark: bytes | None = (pq.read_schema(path).metadata or {}).get(MARK)
    return mark


def _write(path: Path, table: Any) -> None:
    """All of it or nothing, even when the power goes."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    pq.write_table(table, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
