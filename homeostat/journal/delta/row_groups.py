"""When the rows of each row group are from: what a reader of one hour can skip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from homeostat.journal.delta import storage
from homeostat.journal.delta.tables import TableRef, reaching

HOUR = 3600.0


class Span(NamedTuple):
    bytes: int
    start: float  # seconds since 1970
    end: float


def spans(table: TableRef, paths: Iterable[str]) -> list[Span]:
    """Of every row group of some files: their ends are read, and no more. JournalUnavailable."""
    files = storage.filesystem(table.url)
    found = []
    with reaching(table):
        for path in paths:
            with files.open_input_file(path) as file:
                found += _spans(pq.read_metadata(file), table.time_column)
    return found


def disorder(found: Sequence[Span]) -> float:
    """How many times more an hour's read touches than if all rows lay in time order."""
    if len(found) < 2:
        return 1.0
    whole = max(span.end for span in found) - min(span.start for span in found)
    touched = sum(span.bytes * (span.end - span.start + HOUR) for span in found)
    ideal = sum(span.bytes for span in found) * (whole / len(found) + HOUR)
    return touched / ideal


def _spans(metadata: Any, time_column: str) -> list[Span]:
    if not metadata.num_row_groups:
        return []
    first = metadata.row_group(0)
    places = {first.column(at).path_in_schema: at for at in range(first.num_columns)}
    found = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        known = group.column(places[time_column]).statistics
        if known is not None and known.has_min_max:
            start, end = known.min.timestamp(), known.max.timestamp()
            found.append(Span(bytes=group.total_byte_size, start=start, end=end))
    return found
