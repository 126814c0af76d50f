"""Parquet files, one or a folder of them, or those of a Delta table: rows by their place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from homeostat.errors import InputError
from homeostat.journal.delta import storage
from homeostat.journal.delta.other_tables import table_files
from homeostat.scoring.parts import Block, Part, rows_of_a_part

_BUFFER = 1 << 20  # bytes read ahead of a column: without it a whole row group's are


@dataclass(frozen=True, kw_only=True)
class ParquetFile:
    path: str  # relative to the root
    rows: int
    part_rows: int
    constants: Mapping[str, Any] = field(default_factory=dict)  # of a partition


@dataclass(frozen=True, kw_only=True)
class ParquetInput:
    root: str  # a folder, or a URL
    found: tuple[ParquetFile, ...]
    schema: Any
    state: str

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(file.path for file in self.found)

    @property
    def total(self) -> int:
        return sum(file.rows for file in self.found)

    def parts(self) -> Iterator[Part]:
        number = 0
        for place, file in enumerate(self.found):
            for start in range(0, file.rows, file.part_rows):
                stop = min(start + file.part_rows, file.rows)
                yield Part(number=number, file=place, start=start, stop=stop)
                number += 1

    def open(self) -> ParquetReader:
        return ParquetReader(self)


class ParquetReader:
    """Keeps its place in the last file: the next part's rows are further on, most of the time."""

    def __init__(self, source: ParquetInput) -> None:
        self._source = source
        self._store = storage.filesystem(source.root)
        self._file = -1
        self._at = 0
        self._batches: Iterator[Any] = iter(())
        self._left: Any = None  # of the batch that the last part ended in

    def blocks(self, part: Part, rows: int) -> Iterator[Block]:
        """Cut from the part's first row on, however it was come by: a model's sums of floats
        depend on how many rows it got at once, and a part done again is to be the same."""
        waiting: list[Any] = []
        first = 0
        for piece in self._pieces(part, rows):
            waiting.append(self._fitted(piece, part))
            while sum(map(len, waiting)) >= rows:
                whole = pa.concat_batches(waiting)
                yield Block(batch=whole.slice(0, rows), rows=range(first, first + rows))
                waiting, first = [whole.slice(rows)], first + rows
        if sum(map(len, waiting)):
            rest = pa.concat_batches(waiting)
            yield Block(batch=rest, rows=range(first, first + len(rest)))

    def _pieces(self, part: Part, rows: int) -> Iterator[Any]:
        if part.file != self._file or part.start < self._at:
            self._open(part, rows)
        while self._at < part.stop:
            batch, self._left = self._left, None
            if batch is None:
                batch = next(self._batches, None)
                if batch is None:
                    raise InputError(f"{self._path(part)} has fewer rows than its footer says")
            begin, stop = self._at, min(len(batch), part.stop - self._at)
            start = max(0, part.start - begin)
            self._at = begin + stop
            if stop < len(batch):
                self._left = batch.slice(stop)
            if start < stop:
                yield batch.slice(start, stop - start)

    def _open(self, part: Part, rows: int) -> None:
        path = self._source.found[part.file].path
        file = pq.ParquetFile(
            path, filesystem=self._store, buffer_size=_BUFFER, pre_buffer=False, memory_map=False
        )
        groups, start = [], 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if start + count > part.start:
                groups.append((group, start))
            start += count
        self._file, self._left = part.file, None
        self._at = groups[0][1] if groups else start
        self._batches = file.iter_batches(
            batch_size=rows, row_groups=[group for group, _ in groups], use_threads=False
        )

    def _fitted(self, batch: Any, part: Part) -> Any:
        """With the columns of the whole input, in its order and types."""
        constants = self._source.found[part.file].constants
        columns = []
        for wanted in self._source.schema:
            at = batch.schema.get_field_index(wanted.name)
            if at >= 0:
                column = batch.column(at)
                same = column.type == wanted.type
                columns.append(column if same else self._cast(column, wanted, part))
            elif wanted.name in constants:
                value = pa.scalar(constants[wanted.name], wanted.type)
                columns.append(pa.repeat(value, len(batch)))
            else:
                columns.append(pa.nulls(len(batch), wanted.type))
        return pa.RecordBatch.from_arrays(columns, schema=self._source.schema)

    def _cast(self, column: Any, wanted: Any, part: Part) -> Any:
        try:
            return column.cast(wanted.type)
        except pa.ArrowException as error:
            raise InputError(
                f'{self._path(part)}: the column "{wanted.name}" is {column.type}, and not the '
                f"{wanted.type} it is in the other files: {error}"
            ) from error

    def _path(self, part: Part) -> str:
        return f"{self._source.root}/{self._source.found[part.file].path}"


def parquet_file(path: Path) -> ParquetInput:
    return _input(str(path.parent), [(path.name, {})], None, _state([path]))


def parquet_folder(folder: Path) -> ParquetInput:
    """All *.parquet below it; folders named NAME=VALUE are columns of text."""
    paths = sorted(
        path
        for path in folder.rglob("*.parquet")
        if not any(part.startswith(("_", ".")) for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise InputError(f"{folder} holds no .parquet file")
    names = [path.relative_to(folder) for path in paths]
    found = [(name.as_posix(), _partition(name)) for name in names]
    return _input(str(folder), found, None, _state(paths))


def delta_table(url: str, version: int | None) -> ParquetInput:
    """A version of the table; None: the newest."""
    table = table_files(url, version)
    found = [(file.path, file.partition) for file in table.files]
    return _input(url, found, table.schema, f"version {table.version}")


def _input(root: str, found: list[tuple[str, Any]], schema: Any, state: str) -> ParquetInput:
    store, files, schemas = storage.filesystem(root), [], []
    for path, constants in found:
        try:
            with pq.ParquetFile(path, filesystem=store) as file:
                metadata, own = file.metadata, file.schema_arrow.remove_metadata()
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{root}/{path} cannot be read as Parquet: {error}") from error
        size = sum(
            metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)
        )
        rows = metadata.num_rows
        part_rows = rows_of_a_part(rows, size)
        files.append(ParquetFile(path=path, rows=rows, part_rows=part_rows, constants=constants))
        more = [pa.field(name, pa.string()) for name in constants if name not in own.names]
        schemas.append(pa.schema([*own, *more]))
    return ParquetInput(
        root=root, found=tuple(files), schema=schema or _unified(schemas, root), state=state
    )


def _unified(schemas: list[Any], root: str) -> Any:
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(f"the files of {root} do not have the same columns: {error}") from error


def _partition(name: Path) -> dict[str, str]:
    parts = [part.partition("=") for part in name.parts[:-1]]
    return {key: value for key, sign, value in parts if sign}


def _state(paths: list[Path]) -> str:
    """A digest of names, sizes and times."""
    digest = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
