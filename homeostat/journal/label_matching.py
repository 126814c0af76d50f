"""Which ids have no prediction: looked up in the table in one pass, within bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from homeostat.identifiers import milliseconds_of
from homeostat.journal import storage
from homeostat.journal.tables import TableRef, open_table, reaching

TOGETHER = 1_000_000  # rows of the table compared at once
CLOCKS = timedelta(days=1)  # how far an id's time may be from its row's


def unmatched(predictions: TableRef, ids: Sequence[str]) -> set[str]:
    """Those of the ids that no row has. Ids of ours say by themselves which days to look at."""
    handle = open_table(predictions)
    if handle is None:
        return set(ids)
    ours = [id_ for id_ in ids if len(id_) == 36 and id_[14] == "7"]
    days = _days(ours)
    if days is None:
        return _missing(predictions, handle, ids, None)
    ours_set = set(ours)
    others = [id_ for id_ in ids if id_ not in ours_set]
    missing = _missing(predictions, handle, ours, days)
    return missing | (_missing(predictions, handle, others, None) if others else set())


def _days(ours: Sequence[str]) -> str | None:
    """Ids of version 7 sort by time."""
    if not ours:
        return None
    first, last = milliseconds_of(min(ours)), milliseconds_of(max(ours))
    if first is None or last is None:
        return None
    try:
        start, end = (datetime.fromtimestamp(at / 1000, UTC) for at in (first, last))
        return f"date >= '{(start - CLOCKS).date()}' AND date <= '{(end + CLOCKS).date()}'"
    except (OverflowError, ValueError):
        return None


def _missing(table: TableRef, handle: Any, ids: Sequence[str], days: str | None) -> set[str]:
    missing = pa.array(list(dict.fromkeys(ids)), pa.string())
    with reaching(table):
        for known in _stored_ids(table, handle, days):
            if not len(missing):
                break
            missing = missing.filter(pc.invert(pc.is_in(missing, value_set=known)))
    return set(missing.to_pylist())


def _stored_ids(table: TableRef, handle: Any, days: str | None) -> Iterator[Any]:
    """The ids of the table, so many at a time that one look at each piece is worth it."""
    dataset = handle.to_pyarrow_dataset(
        filesystem=storage.filesystem(table.url), file_pruning_predicate=days
    )
    pieces: list[Any] = []
    count = 0
    for batch in dataset.to_batches(columns=["prediction_id"]):
        pieces.append(batch.column(0))
        count += len(batch)
        if count >= TOGETHER:
            yield pa.concat_arrays(pieces)
            pieces, count = [], 0
    if pieces:
        yield pa.concat_arrays(pieces)
