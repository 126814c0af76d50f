"""Rows put aside by a decision, under its key; reversible, and nothing of it is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from homeostat.errors import JournalUnavailable
from homeostat.journal import arrays, rows
from homeostat.journal.commits import ATTEMPTS, commit
from homeostat.journal.encoding import microseconds
from homeostat.journal.scan import scan
from homeostat.journal.tables import TableRef, open_table, reaching

APP_ID = "quarantine"  # one for all: of two at once, one must read again


def hidden_ids(table: TableRef) -> Any:
    """Ids in quarantine under any key."""
    return rows.combined(_read(table)[0]["prediction_id"])


def put(table: TableRef, ids: Sequence[str], reason: str, *, key: str, now: datetime) -> int:
    """How many of the ids were not in quarantine under this key."""
    wanted = pa.array(list(dict.fromkeys(ids)), pa.string())
    for _ in range(ATTEMPTS):
        standing, ordinal = _read(table)
        there = rows.combined(_under(standing, key)["prediction_id"])
        new = wanted.filter(pc.invert(pc.is_in(wanted, value_set=there)))
        reasons = pa.repeat(reason, len(new))
        if _record(table, new, reasons, key=key, now=now, released=False, ordinal=ordinal):
            return len(new)
    raise JournalUnavailable(f"{table.url}: others were faster {ATTEMPTS} times in a row")


def release(table: TableRef, *, key: str, now: datetime) -> int:
    """How many rows were in quarantine under this key, and no longer are."""
    for _ in range(ATTEMPTS):
        standing, ordinal = _read(table)
        mine = _under(standing, key)
        ids, reasons = rows.combined(mine["prediction_id"]), rows.combined(mine["reason"])
        if _record(table, ids, reasons, key=key, now=now, released=True, ordinal=ordinal):
            return len(ids)
    raise JournalUnavailable(f"{table.url}: others were faster {ATTEMPTS} times in a row")


def _read(table: TableRef) -> tuple[Any, int]:
    """What stands in quarantine, and the number of the next decision on it."""
    handle = open_table(table)
    if handle is None:
        return table.schema.empty_table(), 0
    with reaching(table):
        history = scan(table, handle, table.schema.names)
        last = handle.transaction_version(APP_ID)
    return rows.active(history), 0 if last is None else last + 1


def _under(standing: Any, key: str) -> Any:
    return standing.filter(pc.equal(standing["key"], key))


def _record(
    table: TableRef,
    ids: Any,
    reasons: Any,
    *,
    key: str,
    now: datetime,
    released: bool,
    ordinal: int,
) -> bool:
    """False when somebody else decided in between: read again."""
    count = len(ids)
    if not count:
        return True
    columns = [
        ids,
        pa.repeat(key, count),
        reasons,
        arrays.repeated(microseconds(now), count, "int64", arrays.TIME),
        pa.array(np.full(count, released)),
        arrays.repeated(ordinal, count, "int64", pa.int64()),
    ]
    data = pa.table(columns, schema=table.schema)
    return commit(table, data, app_id=APP_ID, version=ordinal)
