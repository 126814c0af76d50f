"""A window larger than memory, batch by batch in time order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from homeostat.journal.delta.snapshot import TRIES, Piece, Snapshot, vanished
from homeostat.journal.encoding.sampling import shares_of
from homeostat.journal.reading.label_join import labels_of, no_labels
from homeostat.journal.reading.recorded import Widths
from homeostat.journal.reading.request import Request
from homeostat.journal.reading.row_reader import Given, Reader
from homeostat.journal.reading.rows import combined, integers, moment
from homeostat.journal.reading.selection import newest_per_id, row_keys, weights_of

LABELLED_AT_ONCE = 1_000_000  # rows whose labels are looked for together
LAST = int(np.iinfo(np.int64).max)
END = Piece(fragment=None, least=LAST, most=LAST)


def batches(
    log: ModelLog,
    start: datetime,
    end: datetime,
    request: Request,
    *,
    rows: int,
    left_out: Callable[[int], object],
) -> Iterator[Any]:
    """Where a file is deleted under the reader, it goes on after the last batch it gave: with rows
    that stand for as many as those given before."""
    begun: _Frame | None = None
    met, tries = Widths(), 0
    while True:
        try:
            weight = None if begun is None else begun.weight
            for frame in _frames(log, start, end, request, rows, weight):
                if frame.given.left_out:
                    left_out(frame.given.left_out)
                met |= frame.given.widths
                yield from frame.given.table.combine_chunks().to_batches(max_chunksize=rows)
                begun, tries = frame, 0
            met.require(request.features)
            return
        except JournalUnavailable as problem:
            tries += 1
            if not vanished(problem) or tries == TRIES:
                raise
            start = max(start, moment(begun.mark)) if begun else start


@dataclass(frozen=True)
class _Frame:
    given: Given
    mark: int  # the time up to which all rows came
    weight: float  # how many rows each stands for


def _frames(
    log: ModelLog,
    start: datetime,
    end: datetime,
    request: Request,
    rows: int,
    weight: float | None,
) -> Iterator[_Frame]:
    """Of at least so many rows but for the last, before any are left out."""
    predictions = log.rows()
    if predictions is None:
        return
    within = during(start, end)
    reader = Reader(log, request, predictions)
    index = _index(predictions, request, within)
    weight = index.weight if weight is None else weight
    aside = reader.aside_between(index.least, index.most)
    pieces = predictions.pieces(within)
    marks = [piece.least for piece in (*pieces[1:], END)]
    waiting: list[Any] = []
    covered = 0
    held: Any | None = None
    for at, (piece, mark) in enumerate(zip(pieces, marks, strict=False)):
        if not index.ours and at >= covered:
            held, covered = _labels_ahead(reader, predictions, pieces, at, waiting, within)
        found = _wanted(reader, predictions, piece, within)
        waiting.append(found.filter(pa.array(index.may_count(found))))
        if sum(map(len, waiting)) < rows and mark != LAST:
            continue
        ready, rest = _cut(waiting, mark)
        if not ready.num_rows or (ready.num_rows < rows and mark != LAST):
            continue
        given = reader.given(ready, aside, weight=weight, held=held)
        waiting = [rest]
        del found, ready, rest  # while the batches are worked on
        yield _Frame(given, mark, weight)


def _cut(waiting: list[Any], mark: int) -> tuple[Any, Any]:
    """Rows before the mark, and the others: none that is still to come is older than it."""
    together = pa.concat_tables(waiting)
    before = pa.array(integers(together["time"]) < mark)
    return together.filter(before), together.filter(pc.invert(before))


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

    def may_count(self, found: Any) -> NDArray[np.bool_]:
        """Rows that no newer one takes the place of."""
        keep = np.ones(found.num_rows, dtype=bool)
        if len(self.superseded):
            codes = pc.index_in(row_keys(found), value_set=self.superseded).fill_null(-1)
            places = integers(codes)
            again = places >= 0
            keep[again] = integers(found["time"])[again] >= self.newest[places[again]]
        return keep


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
