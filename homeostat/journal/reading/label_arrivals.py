"""How far back the labels reach that came since a moment."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from homeostat.journal.delta.bounds import INSTANT, Bound, during, exactly
from homeostat.journal.delta.model_log import ModelLog, text_range
from homeostat.journal.delta.snapshot import Snapshot
from homeostat.journal.reading import rows
from homeostat.journal.reading.label_join import TOGETHER, with_id

FOREVER = datetime(9999, 12, 30, tzinfo=UTC)


def oldest_labelled(
    log: ModelLog, *, name: str, since: datetime, back_to: datetime
) -> datetime | None:
    """The time of the oldest row since `back_to` that has a label which came after `since`; None
    where none has."""
    given, predictions = log.given_labels(), log.rows()
    if given is None or predictions is None:
        return None
    came = (Bound("received", since + INSTANT), Bound("time", since + INSTANT))
    oldest: datetime | None = None
    waiting, count = [pa.nulls(0, pa.string())], 0
    for part in given.stream(["prediction_id"], [came, exactly("name", name)]):
        waiting.append(rows.combined(part["prediction_id"]))
        count += part.num_rows
        if count >= TOGETHER:
            oldest = _oldest(predictions, pa.concat_arrays(waiting), back_to, oldest)
            waiting, count = waiting[:1], 0
    return _oldest(predictions, pa.concat_arrays(waiting), back_to, oldest)


def _oldest(
    predictions: Snapshot, ids: Any, back_to: datetime, before: datetime | None
) -> datetime | None:
    if not len(ids):
        return before
    ids, oldest = ids.unique(), before
    within = [(Bound("prediction_id", *text_range(ids)),), *during(back_to, before or FOREVER)]
    waiting, count = [], 0
    for part in predictions.stream(["prediction_id", "time"], within):
        waiting.append(part)
        count += part.num_rows
        if count >= TOGETHER:
            oldest = _least_time(pa.concat_tables(waiting), ids, oldest)
            waiting, count = [], 0
    return _least_time(pa.concat_tables(waiting), ids, oldest) if waiting else oldest


def _least_time(found: Any, ids: Any, oldest: datetime | None) -> datetime | None:
    times = rows.integers(with_id(found, ids)["time"])
    if not len(times):
        return oldest
    least = rows.moment(times.min())
    return least if oldest is None else min(least, oldest)
