"""A window of the log as one table: all of its rows, or the newest so many."""

from __future__ import annotations

from datetime import datetime

from homeostat.journal.delta.bounds import during
from homeostat.journal.delta.model_log import ModelLog
from homeostat.journal.reading.backwards import start_of
from homeostat.journal.reading.request import Request
from homeostat.journal.reading.row_reader import Given, Reader


def window(
    log: ModelLog, start: datetime, end: datetime, request: Request, *, limit: int | None
) -> Given:
    reader, weight = Reader(log, request, log.rows()), None
    if limit is not None:
        start, weight = start_of(reader, limit, start, end)
    found = reader.rows(request.full(reader.schema), during(start, end))
    given = reader.given(found, reader.aside(found), weight=weight, limit=limit)
    given.widths.require(request.features)
    return given
