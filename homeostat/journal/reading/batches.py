"""A window larger than memory, batch by batch in time order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from homeostat.errors import JournalUnavailable
from homeostat.journal.delta.bounds import Clause, during
from homeostat.journal.delta.model_log import ModelLog, of_version_7, text_range
from homeostat.journal.delta.snapshot import Piece, Snapshot, vanished
from homeostat.journal.encoding.sampling import shares_of
from homeostat.journal.reading.label_join import labels_of, no_labels
from homeostat.journal.reading.quarantine import Aside
from homeostat.journal.reading.request import Request
from homeostat.journal.reading.rows import combined, integers, moment
from homeostat.journal.reading.selection import newest_per_id, row_keys, thinned, weights_of
from homeostat.journal.reading.windows import Reader

LABELLED_AT_ONCE = 1_000_000  # rows whose labels are looked for together
LAST = int(np.iinfo(np.int64).max)
END = Piece(fragment=None, least=LAST)


def batches(
    log: ModelLog, start: datetime, end: datetime, request: Request, *, rows: int
) -> Iterator[Any]:
    """Where a file is deleted under the reader, it goes on after the last batch it gave."""
    begun = tries = 0
    while True:
        try:
            for table, mark in _tables(log, start, end, request, rows):
                yield from table.combine_chunks().to_batches(max_chunksize=rows)
                begun, tries = mark, 0
            return
        except JournalUnavailable as problem:
            if not vanished(problem) or tries:
                raise
            tries += 1
            start = max(start, moment(begun)) if begun else start


def _tables(
    log: ModelLog, start: datetime, end: datetime, request: Request, rows: int
) -> Iterator[tuple[Any, int]]:
    """Frames of at least so many rows but for the last, and the time up to which all came."""
    predictions = log.rows()
    if predictions is None:
        return
    within = during(start, end)
    reader = Reader(log, request, predictions)
    index = _index(predictions, request, within)
    aside = reader.aside(index.least, index.most)
    pieces = predictions.pieces(within)
    marks = [piece.least for piece in (*pieces[1:], END)]
    waiting: list[Any] = []
    count = covered = 0
    held: Any | None = None
    for at, (piece, mark) in enumerate(zip(pieces, marks, strict=False)):
        if not index.ours and at >= covered:
            held, covered = _labels_ahead(reader, predictions, pieces, at, waiting, within)
        found = _wanted(reader, predictions, piece, within)
        found = found.take(pa.array(_kept(found, index, aside, request)))
        waiting.append(found)
        count += found.num_rows
        if count < rows and mark != LAST:
            continue
        # No row that is still to come is older than the mark.
        together = pa.concat_tables(waiting)
        order = newest_per_id(together)
        ready = int(np.searchsorted(integers(together["time"])[order], mark))
        if not ready or (ready < rows and mark != LAST):
            continue
        yield reader.frame(together.take(pa.array(order[:ready])), held), mark
        waiting = [together.take(pa.array(order[ready:]))]
        count = len(order) - ready


def _labels_ahead(
    reader: Reader,
    predictions: Snapshot,
    pieces: list[Piece],
    at: int,
    waiting: list[Any],
    within: Any,
) -> tuple[Any, int]:
    """The labels of the rows that wait and of those in the next pieces, and which piece comes after
    these. Ids of the callers' own say nothing of their time: to find a frame's labels takes a look
    at all of them, so it is done for many frames at once."""
    light, count = [part.select(["prediction_id", "time"]) for part in waiting], 0
    while at < len(pieces) and count < LABELLED_AT_ONCE:
        found = predictions.read_piece(pieces[at], ["prediction_id", "time"], within, None)
        light.append(found)
        count += found.num_rows
        at += 1
    rows = pa.concat_tables(light)
    given = reader.log.given_labels()
    if given is None or not rows.num_rows:
        return no_labels(), at
    ids = combined(rows["prediction_id"]).unique()
    return labels_of(given, ids, rows["time"], name=reader.request.label), at


@dataclass(frozen=True)
class _Index:
    """What has to be known of all rows before the first is given."""

    superseded: Any  # keys of rows that came more than once
    newest: NDArray[np.int64]  # the newest time of each of these
    weight: float
    least: str  # ids
    most: str
    ours: bool  # all ids are of version 7: they sort by time


def _index(predictions: Snapshot, request: Request, within: tuple[Clause, ...]) -> _Index:
    """In two passes over the light columns: a number for each id finds those that may be there
    twice, and only these are looked at as what they are."""
    hashes, weight, ours = [np.zeros(0)], 1.0, True
    extremes: list[str] = []
    for part in _light(predictions, request, within):
        keys = row_keys(part)
        hashes.append(shares_of(keys))
        weight = max(weight, float(weights_of(part).max()))
        ours = ours and of_version_7(part["prediction_id"])
        extremes += text_range(part["prediction_id"])
        extremes = [min(extremes), max(extremes)]
    twice = _twice(np.concatenate(hashes))
    least, most = extremes or ("", "")
    found = []
    if len(twice):
        for part in _light(predictions, request, within):
            mask = np.isin(shares_of(row_keys(part)), twice)
            found.append(part.filter(pa.array(mask)))
    if not found:
        empty = pa.nulls(0, pa.string())
        return _Index(empty, np.zeros(0, np.int64), weight, least, most, ours)
    doubtful = pa.concat_tables(found).combine_chunks()
    winners = doubtful.take(pa.array(newest_per_id(doubtful)))
    return _Index(row_keys(winners), integers(winners["time"]), weight, least, most, ours)


def _light(predictions: Snapshot, request: Request, within: tuple[Clause, ...]) -> Iterator[Any]:
    schema = predictions.schema
    where = request.row_filter(schema)
    for part in predictions.stream(request.light(schema), within, where):
        found = request.sliced(part, schema)
        if found.num_rows:
            yield found


def _twice(hashes: NDArray[np.float64]) -> NDArray[np.float64]:
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def _wanted(reader: Reader, predictions: Snapshot, piece: Piece, within: Any) -> Any:
    request, schema = reader.request, predictions.schema
    where = request.row_filter(schema)
    found = predictions.read_piece(piece, request.full(schema), within, where)
    return request.sliced(found, schema)


def _kept(found: Any, index: _Index, aside: Aside, request: Request) -> NDArray[np.int64]:
    keep = ~aside.mask(found)
    if len(index.superseded):
        codes = pc.index_in(row_keys(found), value_set=index.superseded).fill_null(-1)
        places = integers(codes)
        again = places >= 0
        keep[again] &= integers(found["time"])[again] >= index.newest[places[again]]
    positions = np.flatnonzero(keep)
    if request.weights:
        return positions
    return positions[thinned(found, positions, weights_of(found), index.weight)]
