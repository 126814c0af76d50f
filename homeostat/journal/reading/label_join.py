"""Labels and the rows they belong to. They come late, out of order, corrected, and for no row."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from homeostat import columns as names
from homeostat.journal.delta.bounds import INSTANT, Bound, Clause, exactly
from homeostat.journal.delta.model_log import ModelLog, text_range
from homeostat.journal.delta.snapshot import Snapshot
from homeostat.journal.encoding.sampling import shares_of
from homeostat.journal.encoding.schema import LABEL_SCHEMA
from homeostat.journal.reading import rows
from homeostat.journal.reading.selection import unmatched

CLOCKS = timedelta(hours=1)  # how far the clocks of two machines may be apart
DECIDING = (
    "time",
    "received",
    "ordinal",
)  # which of an id's labels is the newest; then source, value
TOGETHER = 500_000  # ids compared at once
READ = ["prediction_id", "value", "source", *DECIDING]

JOINED = ["value", "time", "known"]
_EARLIEST = datetime(1, 1, 2, tzinfo=UTC)


def newest_labels(given: Snapshot | None, found: Any, *, name: str) -> Any:
    """For rows in time order, one row each: `value` and `time` of its newest label, and since when
    it was `known`; null where none came.

    A label that came, and is, older than its row by more than clocks differ belongs to an older
    row of the same id. So only labels since the first row are read, and of these only the ids
    between the first and the last: where ids hold their time, that is the window's own.
    """
    ids = rows.combined(found["prediction_id"])
    labels = labels_of(given, ids, found["time"], name=name) if given and len(ids) else no_labels()
    return joined(found, labels)


def no_labels() -> Any:
    return LABEL_SCHEMA.empty_table().select(READ)


def joined(found: Any, labels: Any) -> Any:
    """The newest of some labels for each row, as `newest_labels` gives it."""
    ids, times = rows.combined(found["prediction_id"]), rows.integers(found["time"])
    chosen = labels.take(_newest_positions(ids, times, labels))
    return pa.table([chosen["value"], chosen["time"], known_since(chosen)], names=JOINED)


def labels_of(given: Snapshot, ids: Any, times: Any, *, name: str) -> Any:
    """All labels that may belong to rows with these ids and times: only they are held, and those
    read at once."""
    within = [
        *arrived_since(rows.moment(rows.integers(times).min())),
        exactly("name", name),
        (Bound("prediction_id", *text_range(ids)),),
    ]
    mine, waiting, count = [no_labels()], [no_labels()], 0
    for part in given.stream(READ, within):
        waiting.append(part.select(READ))
        count += part.num_rows
        if count >= TOGETHER:
            mine.append(with_id(pa.concat_tables(waiting), ids))
            waiting, count = [no_labels()], 0
    return pa.concat_tables([*mine, with_id(pa.concat_tables(waiting), ids)]).combine_chunks()


def known_since(labels: Any) -> Any:
    """A label with a time of its own may arrive long after it, and one with a wrong clock's before
    it: it is known when both are over."""
    arrived_later = pc.greater(labels["received"], labels["time"])
    return pc.if_else(arrived_later, labels["received"], labels["time"])


def with_id(found: Any, ids: Any) -> Any:
    """The rows that have one of the ids."""
    return found.filter(pc.is_in(found["prediction_id"], value_set=ids))


def outcomes(log: ModelLog, name: str, start: datetime, end: datetime, *, history: bool) -> Any:
    """Labels of a name by their own time, in its order; without history, each id's latest."""
    given = log.given_labels()
    wanted = ["prediction_id", "value", "source", *DECIDING]
    # a correction made after the end may be an id's latest
    last = end - INSTANT if history else None
    within = [(Bound("time", start, last),), exactly("name", name)]
    if given is None:
        found = log.labels.schema.empty_table().select(wanted)
    else:
        found = given.read(wanted, within)
    order = _in_order(found)
    found = found.take(order if history else order[_last_of_each(found, order)])
    end_scalar = pa.scalar(end, found.schema.field("time").type)
    found = found.filter(pc.less(found["time"], end_scalar))
    known = {
        names.PREDICTION_ID: found["prediction_id"],
        names.LABEL: found["value"],
        names.NUMBER: rows.as_numbers(rows.combined(found["value"])),
        names.SOURCE: found["source"],
        names.LABEL_TIME: found["time"],
    }
    return pa.table(list(known.values()), names=list(known))


def pending(log: ModelLog, *, name: str, since: datetime | None) -> int:
    """How many ids have a label but no row (yet), apart from those that sampling left out."""
    given = log.given_labels()
    if given is None:
        return 0
    within: list[Clause] = [exactly("name", name)]
    if since is not None:
        within += arrived_since(since)
    ids = rows.combined(given.read(["prediction_id"], within)["prediction_id"]).unique()
    predictions = log.rows()
    if predictions is None:
        return len(ids)
    return len(_logged(without_row(predictions, ids), predictions))


def without_row(predictions: Snapshot, ids: Any) -> Any:
    """Those of the ids that no row has; files that cannot have one of them are not read."""
    within = [(Bound("prediction_id", *text_range(ids)),)]
    seen: list[Any] = []
    for part in predictions.stream(["prediction_id"], within):
        seen.append(rows.combined(part["prediction_id"]))
        if sum(map(len, seen)) >= TOGETHER:
            ids, seen = unmatched(ids, pa.concat_arrays(seen)), []
        if not len(ids):
            break
    return unmatched(ids, pa.concat_arrays(seen)) if seen and len(ids) else ids


def _logged(ids: Any, predictions: Snapshot) -> Any:
    """Without the ids of rows that were not logged at any rate the table has seen."""
    least = predictions.least("weight")
    if least is None or least <= 1.0 or not len(ids):
        return ids
    return ids.filter(pa.array(shares_of(ids) < 1.0 / least))


def arrived_since(start: datetime) -> list[Clause]:
    """By arrival, or by the label's own time, where a clock was wrong or a time was given."""
    if start <= _EARLIEST:
        return []
    since = start - CLOCKS
    return [(Bound("received", since), Bound("time", since))]


def _newest_positions(ids: Any, times: NDArray[np.int64], labels: Any) -> Any:
    """For each row the position of its newest label, by time, then arrival; null where none."""
    encoded = ids.dictionary_encode()  # a shadow's rows have the ids of those they shadow
    places = pc.index_in(rows.combined(labels["prediction_id"]), value_set=encoded.dictionary)
    codes, mine = rows.integers(places.fill_null(-1)), rows.integers(encoded.indices)
    first = np.full(len(encoded.dictionary), np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(first, mine, times)
    known = np.flatnonzero(codes >= 0)
    newer = np.maximum(rows.integers(labels["time"]), rows.integers(labels["received"]))
    known = known[newer[known] >= first[codes[known]] - CLOCKS // INSTANT]
    order = known[_in_order(labels.take(pa.array(known)))]
    newest = np.full(len(first), -1, dtype=np.int64)
    newest[codes[order]] = order
    return pa.array(newest[mine], mask=newest[mine] < 0)


def _in_order(labels: Any) -> NDArray[np.int64]:
    """By time, arrival and place in what arrived; where all of these are the same, as from two
    servers in one moment, by source and value, so that no order of files decides."""
    keys: Sequence[Any] = [rows.integers(labels[name]) for name in reversed(DECIDING)]
    order: NDArray[np.int64] = np.lexsort(tuple(keys))
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for key in keys:
        same &= np.diff(key[order]) == 0
    tied = order[np.append(same, False) | np.insert(same, 0, False)] if len(order) else order
    if not len(tied):
        return order
    texts = [
        rows.combined(labels[name]).take(pa.array(tied)).fill_null("").to_pylist()
        for name in ("source", "value")
    ]
    said = list(zip(*texts, strict=True))
    places = {each: at for at, each in enumerate(sorted(set(said)))}
    rank = np.zeros(len(order), dtype=np.int64)
    rank[tied] = [places[each] for each in said]
    return np.asarray(np.lexsort((rank, *keys)), dtype=np.int64)


def _last_of_each(labels: Any, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places in the order: the last of each id, in the order."""
    encoded = rows.combined(labels["prediction_id"]).dictionary_encode()
    last = np.full(len(encoded.dictionary), -1, dtype=np.int64)
    last[rows.integers(encoded.indices)[order]] = np.arange(len(order))
    return np.sort(last)
