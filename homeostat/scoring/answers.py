"""Rows with their answers: the columns that are added, and the file of a part."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from homeostat.errors import InputError
from homeostat.model_runtime.contract import Outputs
from homeostat.records import ModelSpec, Task
from homeostat.scoring.columns import is_text
from homeostat.scoring.job import Options

PREDICTION_ID = "prediction_id"
GROUP_BYTES = 32 << 20  # of a row group, in memory


class Layout:
    """Which columns the output has. Raises InputError where a name would stand twice."""

    def __init__(self, options: Options, spec: ModelSpec, schema: Any, taken: Sequence[str]):
        self._spec, self._prefix = spec, options.prefix
        self.kept = _kept(options, schema.names, taken)
        for name in self.added(spec.classes):
            if name in self.kept:
                raise InputError(
                    f'the input has a column "{name}" already: put something before the names of '
                    "the added columns (--prefix), or keep other columns (--keep)"
                )

    def added(self, classes: Sequence[str]) -> list[str]:
        names = [PREDICTION_ID, "model_version", "prediction"]
        names += [f"probability_{name}" for name in classes]
        return [f"{self._prefix}{name}" for name in names]

    def table(self, batch: Any, places: Any, ids: Sequence[str], outputs: Outputs) -> Any:
        """The answered rows of a block; `places` are theirs in it."""
        whole = len(places) == len(batch)
        kept = batch.select(self.kept)
        kept = kept if whole else kept.take(pa.array(places))
        classification = self._spec.task is Task.CLASSIFICATION
        said = pa.array(outputs.predictions, pa.string() if classification else pa.float64())
        version = pa.repeat(pa.scalar(self._spec.version), len(places))
        columns = [pa.array(ids, pa.string()), version, said]
        shares = outputs.probabilities
        classes = self._spec.classes if shares is not None else ()
        if shares is not None:
            columns += [pa.array(np.ascontiguousarray(column)) for column in shares.T]
        names = [*self.kept, *self.added(classes)]
        return pa.table([*kept.columns, *columns], names=names)


def _kept(options: Options, names: Sequence[str], taken: Sequence[str]) -> list[str]:
    match options.keep:
        case "all":
            return list(names)
        case "others":
            return [name for name in names if name not in taken]
        case "none":
            return []
        case chosen:
            missing = [name for name in chosen if name not in names]
            if missing:
                raise InputError(f'--keep: the input has no column "{missing[0]}"')
            return list(chosen)


class PartFile:
    """The answers of a part, block by block; they are there when they are whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._file: Any = None
        self._writer: Any = None
        self._schema: Any = None
        self._waiting: list[Any] = []  # many small row groups are slow to write and to read
        self._bytes = 0

    def write(self, table: Any) -> None:
        table = flat(table) if self._path.suffix == ".csv" else table
        if self._writer is None:
            self._file = self._partial.open("wb")
            self._schema = table.schema
            self._writer = writer_for(self._path, self._file, self._schema)
        self._waiting.append(table.cast(self._schema))
        self._bytes += table.nbytes
        if self._bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """A part none of whose rows was answered has no file."""
        if self._writer is None:
            self._path.unlink(missing_ok=True)
            return
        self._flush()
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._path)

    def drop(self) -> None:
        if self._file is not None:
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
        self._waiting, self._bytes = [], 0


@contextmanager
def part_file(path: Path) -> Iterator[PartFile]:
    file = PartFile(path)
    try:
        yield file
        file.close()
    finally:
        file.drop()


def writer_for(path: Path, file: Any, schema: Any) -> Any:
    if path.suffix == ".csv":
        return pacsv.CSVWriter(file, schema)
    return pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=_repeated(schema))


def _repeated(schema: Any) -> list[str]:
    """Columns in which a value comes more than once, as a rule: to look for that among numbers or
    ids takes longer than to write them."""
    return [
        field.name
        for field in schema
        if is_text(field.type) and not field.name.endswith(PREDICTION_ID)
    ]


def flat(table: Any) -> Any:
    """Lists and the like as JSON in their field: CSV has no other place for them."""
    for at, field in enumerate(table.schema):
        if pa.types.is_nested(field.type) or isinstance(field.type, pa.ExtensionType):
            texts = [
                None if value is None else json.dumps(value, default=str)
                for value in table.column(at).to_pylist()
            ]
            table = table.set_column(at, field.name, pa.array(texts, pa.string()))
    return table
