"""A request in the queue, and what is known of it there."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from serving.requests.asked import Asked
from serving.requests.forms import Written
from serving.requests.later import Later
from serving.requests.parsing import Rows


class Waiting(msgspec.Struct):
    """See Batcher."""

    rows: Rows
    future: Later[Written]
    until: float = math.inf  # when it has waited for the journal long enough, if it has to
    asked: Asked | None = None
    since: float = 0.0
    odd: bool = False  # it has a deadline, or not the usual role
    unread: bool = False  # by a model that had ended; once it may be asked again

    @property
    def caller(self) -> str:
        """Who takes turns with others."""
        return self.asked.whose if self.asked else ""

    @property
    def count(self) -> int:
        return self.rows.count


def rows_in(batch: Sequence[Waiting]) -> int:
    return sum([waiting.rows.count for waiting in batch])
