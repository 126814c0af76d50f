"""Which ids have a prediction in the log, and since when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from homeostat.journal.delta.bounds import Bound
from homeostat.journal.delta.model_log import text_range
from homeostat.journal.delta.snapshot import again, open_snapshot
from homeostat.journal.delta.tables import TableRef
from homeostat.journal.reading import rows
from homeostat.journal.reading.label_join import TOGETHER, with_id


def first_predicted(predictions: TableRef, ids: Sequence[str]) -> dict[str, int]:
    """The time of the oldest row of each id, in microseconds; ids without a row are left out.
    Raises JournalUnavailable.

    Ids of ours sort by time, so that those of a month lie in the files of that month. One id of a
    caller's own among them would stretch that to everything: they are looked for by themselves.
    """
    ours = [id_ for id_ in ids if len(id_) == 36 and id_[14] == "7"]
    theirs = [id_ for id_ in ids if not (len(id_) == 36 and id_[14] == "7")]
    return {
        id_: first
        for group in (ours, theirs)
        if group
        for id_, first in _looked_for(predictions, group).items()
    }


def _looked_for(predictions: TableRef, ids: Sequence[str]) -> dict[str, int]:
    wanted = pa.array(ids, pa.string()).unique()
    within = [(Bound("prediction_id", *text_range(wanted)),)]

    def look() -> dict[str, int]:
        snapshot = open_snapshot(predictions)
        found: dict[str, int] = {}
        waiting: list[Any] = []
        for part in () if snapshot is None else snapshot.stream(["prediction_id", "time"], within):
            waiting.append(part)
            if sum(each.num_rows for each in waiting) >= TOGETHER:
                _note(found, with_id(pa.concat_tables(waiting), wanted))
                waiting = []
        if waiting:
            _note(found, with_id(pa.concat_tables(waiting), wanted))
        return found

    return again(look)


def _note(found: dict[str, int], mine: Any) -> None:
    times = rows.integers(mine["time"]).tolist()
    for id_, time in zip(mine["prediction_id"].to_pylist(), times, strict=True):
        found[id_] = min(time, found.get(id_, time))
