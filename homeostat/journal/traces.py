"""Which rows of the log a file was made of, so that a person's request to be forgotten reaches it.

Beside train.parquet lies train.ids.parquet: one row for each of its rows, in their order, with the
row's prediction_id (null where it is no row of the log) and the caller's key (null where it has
none).
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

SCHEMA = pa.schema([pa.field("prediction_id", pa.string()), pa.field("key", pa.string())])


def trace_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}.ids.parquet")


def write_trace(path: Path, ids: Any, keys: Any) -> None:
    """Of the rows in `path`: Arrow arrays, or sequences, of one text or None a row."""
    columns = [pa.array(given, pa.string()) for given in (_listed(ids), _listed(keys))]
    _write(trace_path(path), pa.table(columns, schema=SCHEMA))


def read_trace(path: Path) -> Any:
    """Two columns, one row a row of the file; all null where the file has no trace."""
    _finish(path)
    trace, rows = trace_path(path), pq.read_metadata(path).num_rows
    if not trace.exists():
        return pa.table([pa.nulls(rows, pa.string())] * 2, schema=SCHEMA)
    return pq.read_table(trace).select(SCHEMA.names).cast(SCHEMA)


def without(path: Path, *, ids: Collection[str] = (), keys: Collection[str] = ()) -> int:
    """Rewrite a file without the rows that have one of these ids or keys; how many those were.

    Killed in between, the file and its trace still belong together for whoever reads the trace.
    """
    if not trace_path(path).exists():
        return 0
    trace = read_trace(path)
    gone = np.zeros(trace.num_rows, dtype=bool)
    for name, wanted in (("prediction_id", ids), ("key", keys)):
        named = pc.is_in(trace[name], value_set=pa.array(sorted(wanted), pa.string()))
        gone |= named.combine_chunks().to_numpy(zero_copy_only=False)
    if gone.any():
        kept = pa.array(~gone)
        _write(_next(path), trace.filter(kept))
        _write(path, pq.read_table(path).filter(kept))
        _finish(path)
    return int(gone.sum())


def _next(path: Path) -> Path:
    return path.with_name(f"{path.stem}.ids.next")


def _finish(path: Path) -> None:
    """A rewrite that was begun: the new trace is the file's own once it has as many rows."""
    waiting = _next(path)
    if not waiting.exists():
        return
    if pq.read_metadata(waiting).num_rows == pq.read_metadata(path).num_rows:
        waiting.replace(trace_path(path))
    else:
        waiting.unlink()


def _listed(given: Any) -> Any:
    return given.combine_chunks() if isinstance(given, pa.ChunkedArray) else given


def _write(path: Path, table: Any) -> None:
    """All of it or nothing, even when the power goes."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    pq.write_table(table, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
