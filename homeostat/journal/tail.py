"""The newest rows, as they are committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from homeostat import columns as names
from homeostat.journal.reader import Journal

MOST = 1000  # rows shown of one commit; of a fast server, the newest
EVERY = 1.0  # seconds between two looks


def tail(
    journal: Journal,
    features: Sequence[str],
    count: int,
    *,
    follow: bool = True,
    pause: Callable[[float], object] = time.sleep,
    **chosen: Any,
) -> Iterator[Any]:
    """The newest rows, then those that come, as tables in time order, each as it was recorded;
    without end where it follows. Of a commit of very many rows, the newest. Raises
    JournalUnavailable."""
    chosen = {"as_recorded": features} | chosen
    seen = journal.newest(max(count, MOST), features, **chosen)
    if seen.num_rows and count:
        yield seen.slice(max(0, seen.num_rows - count))
    while follow:
        pause(EVERY)
        newest = journal.newest(MOST, features, **chosen)
        fresh = newest.filter(_unseen(newest, seen))
        if fresh.num_rows:
            yield fresh
        seen = newest


def _unseen(newest: Any, seen: Any) -> Any:
    """Rows that were not among those seen, and were not there before they were the newest."""
    fresh = pc.invert(pc.is_in(newest[names.PREDICTION_ID], value_set=seen[names.PREDICTION_ID]))
    if seen.num_rows < MOST:
        return fresh
    oldest = pa.scalar(seen[names.TIME][0].as_py(), newest[names.TIME].type)
    return pc.and_(fresh, pc.greater_equal(newest[names.TIME], oldest))
