"""A CSV file, or a folder of them, cut where a record ends. Columns are text until the model
wants a number: what is passed through stays as it was written."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from homeostat.errors import InputError
from homeostat.scoring.parts import BadRow, Block, Part

PART_BYTES = 8 << 20  # of text: some times as much in memory
_LONGEST_RECORD = 256 << 20
_QUOTE, _NEWLINE = ord('"'), ord("\n")


@dataclass(frozen=True, kw_only=True)
class CsvFile:
    path: str
    size: int
    body: int  # where the rows begin, behind the names


@dataclass(frozen=True, kw_only=True)
class CsvInput:
    found: tuple[CsvFile, ...]
    names: tuple[str, ...]
    state: str
    part_bytes: int = PART_BYTES

    @property
    def schema(self) -> Any:
        return pa.schema([pa.field(name, pa.string()) for name in self.names])

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(file.path for file in self.found)

    @property
    def total(self) -> int:
        return sum(file.size - file.body for file in self.found)

    def parts(self) -> Iterator[Part]:
        number = 0
        for place, file in enumerate(self.found):
            for start, stop in _ranges(file, self.part_bytes):
                yield Part(number=number, file=place, start=start, stop=stop)
                number += 1

    def open(self) -> CsvReader:
        return CsvReader(self)


class CsvReader:
    def __init__(self, source: CsvInput) -> None:
        self._source = source
        text = dict.fromkeys(source.names, pa.string())
        self._convert = pacsv.ConvertOptions(
            column_types=text,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )

    def blocks(self, part: Part, rows: int) -> Iterator[Block]:
        file = self._source.found[part.file]
        with Path(file.path).open("rb") as data:
            data.seek(part.start)
            text = data.read(part.size)
        if not text.strip(b"\r\n"):
            return
        bad: list[BadRow] = []
        table = self._parsed(text, file, bad)
        places = np.delete(np.arange(len(table) + len(bad)), [each.row for each in bad])
        told, start = tuple(bad), 0
        for batch in table.to_batches(max_chunksize=rows):
            yield Block(batch=batch, rows=places[start : start + len(batch)].tolist(), bad=told)
            start, told = start + len(batch), ()
        if told:
            yield Block(batch=table.schema.empty_table().to_batches()[0], rows=(), bad=told)

    def _parsed(self, text: bytes, file: CsvFile, bad: list[BadRow]) -> Any:
        def note(row: Any) -> str:
            problem = f"{row.actual_columns} values, and not {row.expected_columns}"
            bad.append(BadRow(row=row.number - 1, column="", problem=problem))
            return "skip"

        try:
            return pacsv.read_csv(
                pa.BufferReader(text),
                pacsv.ReadOptions(
                    use_threads=False,  # only then are rows numbered
                    column_names=list(self._source.names),
                    block_size=len(text) + 1,
                ),
                pacsv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
                self._convert,
            )
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise InputError(f"{file.path} cannot be read as CSV in UTF-8: {error}") from error


def csv_files(paths: list[Path]) -> CsvInput:
    """Raises InputError where they do not have the same columns in the same order."""
    found, names, digest = [], None, hashlib.sha256()
    for path in paths:
        stat = path.stat()
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        own, body = _header(path)
        if names is not None and own != names:
            raise InputError(f"{path} has other columns than {paths[0]}")
        names = own
        found.append(CsvFile(path=str(path), size=stat.st_size, body=body))
    return CsvInput(found=tuple(found), names=names or (), state=digest.hexdigest())


def _header(path: Path) -> tuple[tuple[str, ...], int]:
    with path.open("rb") as file:
        end = next((stop for _, stop in _cuts(file, 0, 1)), 0)
        file.seek(0)
        head = file.read(end)
    try:
        names = next(csv.reader([head.decode("utf-8-sig")]), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} does not begin with the names of its columns: {error}") from error
    names = [name.strip("\r\n") for name in names]
    if not names:
        raise InputError(f"{path} is empty: its first line names the columns")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path} has the column {twice[0]!r} twice")
    return tuple(names), end


def _ranges(file: CsvFile, size: int) -> Iterator[tuple[int, int]]:
    with Path(file.path).open("rb") as data:
        yield from _cuts(data, file.body, size)


def _cuts(file: IO[bytes], start: int, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of about `size` bytes that end behind a record; a newline in quotes ends none."""
    step = max(size, 1 << 16)
    while True:
        file.seek(start)
        text = file.read(step)
        if not text:
            return
        last = len(text) < step
        end = len(text) if last and size > 1 else _record_end(text, first=size == 1)
        if end == 0 and last:
            end = len(text)
        if end == 0:
            step *= 2  # a record longer than a part
            if step > _LONGEST_RECORD:
                raise InputError(
                    f"{file.name}: a record from byte {start} on has no end within "
                    f"{_LONGEST_RECORD >> 20} MB; is a quote missing?"
                )
            continue
        yield start, start + end
        start, step = start + end, max(size, 1 << 16)


def _record_end(text: bytes, *, first: bool) -> int:
    """Behind the last (or first) newline outside of quotes; 0 for none."""
    if b'"' not in text:
        return (text.find(b"\n") if first else text.rfind(b"\n")) + 1
    codes = np.frombuffer(text, np.uint8)
    inside = np.cumsum(codes == _QUOTE, dtype=np.int64) & 1
    ends = np.flatnonzero((codes == _NEWLINE) & (inside == 0))
    if not len(ends):
        return 0
    return int(ends[0 if first else -1]) + 1
