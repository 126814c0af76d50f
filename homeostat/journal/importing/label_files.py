"""Files of labels, row by row: CSV, JSON lines, Parquet. A file may be larger than memory."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from homeostat.errors import InputError

CSV, JSON_LINES, PARQUET = (".csv", ".tsv"), (".jsonl", ".ndjson"), (".parquet",)
BATCH = 10_000  # rows of a Parquet file at once


@dataclass(frozen=True, slots=True)
class Row:
    """One row, or why it cannot be read."""

    line: int  # its last line in the file, from 1; of a Parquet file, the row
    values: Mapping[str, Any]
    problem: str = ""
    place: int = 0  # how far into the file: bytes, or rows of Parquet


def check(path: Path) -> None:
    """Raises InputError for a kind of file that cannot be read."""
    if _kind(path) not in CSV + JSON_LINES + PARQUET:
        raise InputError(
            f"{path.name}: labels are read from .csv, .tsv, .jsonl, .ndjson (these also as .gz) "
            "and .parquet"
        )


def typed(path: Path) -> bool:
    """Whether the file itself tells numbers from text."""
    return _kind(path) not in CSV


def size(path: Path) -> int:
    """What `place` counts up to."""
    if _kind(path) in PARQUET:
        with _parquet(path) as file:
            return int(file.metadata.num_rows)
    return path.stat().st_size


def columns(path: Path) -> list[str] | None:
    """None where every row has its own."""
    if _kind(path) in JSON_LINES:
        return None
    if _kind(path) in PARQUET:
        with _parquet(path) as file:
            return list(file.schema_arrow.names)
    with _text(path) as (text, _):
        try:
            return next(csv.reader(text, delimiter=_delimiter(path)), [])
        except csv.Error as problem:
            raise InputError(f"{path.name}: its first line cannot be read: {problem}") from None


def rows(path: Path, wanted: list[str]) -> Iterator[Row]:
    """In the file's order. A row that cannot be read is told as such, and the next one follows."""
    if _kind(path) in PARQUET:
        return _parquet_rows(path, wanted)
    return _csv_rows(path) if _kind(path) in CSV else _json_rows(path)


def _csv_rows(path: Path) -> Iterator[Row]:
    with _text(path) as (text, raw):
        reader = csv.reader(text, delimiter=_delimiter(path))
        names = next(reader, [])
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as problem:
                yield Row(reader.line_num, {}, f"not CSV: {problem}", raw.tell())
                continue
            if len(cells) == len(names):
                values = dict(zip(names, cells, strict=True))
                yield Row(reader.line_num, values, "", raw.tell())
            elif cells:
                problem_ = f"has {len(cells)} cells, the first line has {len(names)}"
                yield Row(reader.line_num, {}, problem_, raw.tell())


def _json_rows(path: Path) -> Iterator[Row]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    with _text(path) as (text, raw):
        for number, line in enumerate(text, start=1):
            if not line.strip():
                continue
            try:
                yield Row(number, decode(line), "", raw.tell())
            except (msgspec.DecodeError, UnicodeEncodeError) as problem:
                yield Row(number, {}, f"not a JSON object: {problem}", raw.tell())


def _parquet_rows(path: Path, wanted: list[str]) -> Iterator[Row]:
    number = 0
    with _parquet(path) as file:
        for batch in file.iter_batches(BATCH, columns=wanted):
            table = pa.table({name: _micro(batch.column(name)) for name in batch.schema.names})
            for values in table.to_pylist():
                number += 1
                yield Row(number, values, "", number)


def _micro(column: Any) -> Any:
    """Times as Python has them; those of pandas have nanoseconds, which nobody labels by."""
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return column


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except pa.ArrowException as problem:
        raise InputError(f"{path.name}: not a Parquet file: {problem}") from problem


@contextmanager
def _text(path: Path) -> Iterator[tuple[IO[str], IO[bytes]]]:
    """The text, and the file whose position says how far it was read."""
    with path.open("rb") as raw, ExitStack() as stack:
        packed = path.suffix == ".gz"
        data: Any = stack.enter_context(gzip.open(raw)) if packed else raw
        # what is no UTF-8 is found out row by row, where it is used
        text = io.TextIOWrapper(data, "utf-8-sig", errors="surrogateescape", newline="")
        try:
            yield text, raw
        except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
            raise InputError(f"{path.name}: cannot be unpacked: {problem}") from problem


def _kind(path: Path) -> str:
    name = path.name.removesuffix(".gz") if path.suffix == ".gz" else path.name
    kind = Path(name).suffix.lower()
    return "" if kind in PARQUET and path.suffix == ".gz" else kind


def _delimiter(path: Path) -> str:
    return "\t" if _kind(path) == ".tsv" else ","
