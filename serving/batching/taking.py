"""Which of those that wait leave the queue: the first ones that fit, or those a rule has chosen."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from serving.batching.waiting import Waiting

Queue = deque[Waiting]  # in the order in which they came


def take(pending: Queue, most: int, until: float = math.inf) -> list[Waiting]:
    """Whole requests, as many as fit into `most` rows, and whose time is over by then; one that
    fits nowhere goes alone."""
    count = 0
    batch: list[Waiting] = []
    while pending and (until == math.inf or pending[0].until <= until):
        rows = pending[0].rows.count
        if batch and count + rows > most:
            break
        count += rows
        batch.append(pending.popleft())
    return batch


def take_one_role(pending: Queue, chosen: Sequence[Waiting]) -> list[Waiting]:
    """Of the chosen ones those that have the first one's role: a batch never mixes two."""
    batch = [each for each in chosen if each.rows.role == chosen[0].rows.role]
    _keep_but(pending, batch)
    return batch


def take_overdue(pending: Queue, now: float) -> list[Waiting]:
    """Those whose callers' time is over."""
    late = [each for each in pending if each.asked and each.asked.until <= now]
    if late:
        _keep_but(pending, late)
    return late


def _keep_but(pending: Queue, taken: Sequence[Waiting]) -> None:
    gone = {id(each) for each in taken}
    left = [each for each in pending if id(each) not in gone]
    pending.clear()
    pending.extend(left)
