"""How far back the newest so many rows reach: read backwards, and no further than that."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from homeostat.journal.delta.bounds import during
from homeostat.journal.delta.snapshot import Snapshot
from homeostat.journal.encoding.sampling import shares_of
from homeostat.journal.encoding.schema import microseconds
from homeostat.journal.reading.request import SELECTING
from homeostat.journal.reading.row_reader import Reader
from homeostat.journal.reading.rows import combined, flags, integers, moment
from homeostat.journal.reading.selection import newest_enough, newest_per_id, weights_of

FURTHER = 4  # times as many rows at the next look, where those seen were too few


def start_of(
    reader: Reader, count: int, start: datetime, end: datetime
) -> tuple[datetime, float | None]:
    """Since when so many of the newest rows between two times are, and how many each stands for.

    Held are the light columns of these rows, of a part of the table about as large, and of the rows
    on the way that are left out.
    """
    if count <= 0:
        return end, None
    if reader.predictions is None:
        return start, None
    held, largest = None, 1.0
    for part, since in _parts(reader, reader.predictions, count, start, end):
        largest = max(largest, _most(part))
        held = part if held is None else pa.concat_tables([held, part])
        held = held.take(pa.array(newest_per_id(held)))
        enough = _enough(reader, held, since, count)
        if enough is not None:
            return enough
    return start, largest


def _most(part: Any) -> float:
    return float(weights_of(part).max()) if part.num_rows else 1.0


def _enough(
    reader: Reader, held: Any, since: int, count: int
) -> tuple[datetime, float | None] | None:
    """By the rows since a moment: of these none is still to come."""
    known = np.flatnonzero(integers(held["time"]) >= since)[::-1]  # the newest first
    mine = held.take(pa.array(known))
    keep = np.flatnonzero(~reader.aside(mine).mask(mine) & ~flags(mine["lacking"]))
    if len(keep) < count:
        return None
    times = integers(mine["time"])[keep]
    if reader.request.weights:
        return moment(times[count - 1]), None
    shares = shares_of(combined(mine["prediction_id"]).take(pa.array(keep)))
    found = newest_enough(weights_of(mine)[keep], shares, count)
    return None if found is None else (moment(times[found[0]]), found[1])


def _parts(
    reader: Reader, predictions: Snapshot, count: int, start: datetime, end: datetime
) -> Iterator[tuple[Any, int]]:
    """Light rows in parts of about so many, and since when all have come with each."""
    request, schema = reader.request, reader.schema
    columns, where = request.telling(schema), request.row_filter(schema)
    for first, last in _spans(predictions, count, start, end):
        within = during(first, last)
        pieces = sorted(predictions.pieces(within), key=lambda piece: piece.most, reverse=True)
        marks = [*(piece.most + 1 for piece in pieces[1:]), microseconds(first)]
        waiting, rows = [], 0
        for piece, mark in zip(pieces, marks, strict=False):
            found = predictions.read_piece(piece, columns, within, where)
            found = request.sliced(found, schema)
            lacking = pa.array(reader.lacking(found))
            waiting.append(found.select(SELECTING).append_column("lacking", lacking))
            rows += found.num_rows
            if rows >= count or piece is pieces[-1]:
                yield pa.concat_tables(waiting), max(mark, microseconds(first))
                waiting, rows = [], 0


def _spans(
    predictions: Snapshot, wanted: int, start: datetime, end: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """Times that follow each other backwards, by files that may hold enough together."""
    last = end
    while last > start:
        first = max(start, _since(predictions, wanted, end) or start)
        if first < last:
            yield first, last
        last, wanted = min(first, last), FURTHER * wanted


def _since(predictions: Snapshot, wanted: int, before: datetime) -> datetime | None:
    """Since when so many rows may have come; None: there are fewer."""
    rows, start = 0, before
    for span in predictions.spans():
        if span.least is None:
            return None
        if span.least < before:
            rows, start = rows + span.rows, min(start, span.least)
        if rows >= wanted:
            return start
    return None
