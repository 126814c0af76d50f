"""A window of the log as one file, of any size: Parquet, CSV or JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from homeostat.errors import InputError
from homeostat.journal.delta.files import Progress, silent
from homeostat.journal.reader import Journal

FORMATS = (".parquet", ".csv", ".jsonl")


class _Sink(Protocol):
    def write(self, batch: Any) -> None:
        """One record batch; all of them have the same columns."""

    def close(self) -> None:
        """What was written is whole."""


def export(
    journal: Journal,
    path: Path,
    start: datetime,
    end: datetime,
    features: Sequence[str],
    *,
    about: int = 0,
    progress: Progress = silent,
    **chosen: Any,
) -> int:
    """Write the rows of `journal.batches(start, end, features, **chosen)`, each as it was recorded;
    how many they were.

    The file is there when it is whole, and not before. `about` is how many rows there will be, for
    the progress. Raises InputError for a name with another ending, JournalUnavailable.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: a file ending in {', '.join(FORMATS)}")
    rows, chosen = 0, {"as_recorded": features} | chosen
    with _whole(path) as file:
        sink: _Sink | None = None
        for batch in journal.batches(start, end, features, **chosen):
            sink = sink or _sink(path, file, batch.schema)
            sink.write(batch)
            rows += batch.num_rows
            progress("exporting", rows, max(rows, about))
        if sink is None:
            empty = journal.window(start, start, features, **chosen)  # no rows, but their columns
            sink = _sink(path, file, empty.schema)
        sink.close()
    progress("exporting", rows, rows)
    return rows


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _sink(path: Path, file: IO[bytes], schema: Any) -> _Sink:
    match path.suffix.lower():
        case ".parquet":
            return _Parquet(file, schema)
        case ".csv":
            return _Csv(file, schema)
        case _:
            return _JsonLines(file)


class _Parquet:
    def __init__(self, file: IO[bytes], schema: Any) -> None:
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")

    def write(self, batch: Any) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


class _Csv:
    """Lists (probabilities, embeddings) as JSON in their field."""

    def __init__(self, file: IO[bytes], schema: Any) -> None:
        fields = [pa.field(f.name, pa.string() if _is_list(f) else f.type) for f in schema]
        self._schema = pa.schema(fields)
        self._writer = pacsv.CSVWriter(file, self._schema)

    def write(self, batch: Any) -> None:
        columns = [
            pa.array(
                [None if v is None else json.dumps(v) for v in column.to_pylist()], pa.string()
            )
            if _is_list(field)
            else column
            for field, column in zip(batch.schema, batch.columns, strict=True)
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class _JsonLines:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, batch: Any) -> None:
        lines = [json_line(row) for row in batch.to_pylist()]
        self._file.write(b"\n".join([*lines, b""]))

    def close(self) -> None:
        self._file.flush()


def json_line(row: dict[str, Any]) -> bytes:
    """A row of a frame as JSON; times as ISO text, what is no number as null."""
    return msgspec.json.encode(row)


def _is_list(field: Any) -> bool:
    return bool(pa.types.is_list(field.type) or pa.types.is_large_list(field.type))
