"""Which ids have no prediction in the log."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from homeostat.journal.delta.snapshot import again, open_snapshot
from homeostat.journal.delta.tables import TableRef
from homeostat.journal.reading.label_join import without_row


def unmatched(predictions: TableRef, ids: Sequence[str]) -> set[str]:
    """Those of the ids that no row has. Raises JournalUnavailable.

    Ids of ours sort by time, so that those of a month lie in the files of that month. One id of a
    caller's own among them would stretch that to everything: they are looked for by themselves.
    """
    ours = [id_ for id_ in ids if len(id_) == 36 and id_[14] == "7"]
    theirs = [id_ for id_ in ids if not (len(id_) == 36 and id_[14] == "7")]
    return {id_ for group in (ours, theirs) if group for id_ in _missing(predictions, group)}


def _missing(predictions: TableRef, ids: Sequence[str]) -> list[str]:
    wanted = pa.array(list(dict.fromkeys(ids)), pa.string())

    def look() -> list[str]:
        snapshot = open_snapshot(predictions)
        found: list[str] = (
            wanted if snapshot is None else without_row(snapshot, wanted)
        ).to_pylist()
        return found

    return again(look)
