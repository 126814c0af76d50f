"""What rows are wanted, said once: as a filter on rows, and as a look at the files' statistics."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from homeostat.journal.encoding.arrays import TIME

INSTANT = timedelta(microseconds=1)
ROUNDED = timedelta(milliseconds=1)  # Delta's statistics cut times to milliseconds


@dataclass(frozen=True)
class Bound:
    """least <= column <= most. Ids are compared as text: those of version 7 sort by time."""

    column: str
    least: datetime | str | None = None  # None: open
    most: datetime | str | None = None
    or_null: bool = False


# At least one of them holds. A clause over a column that a table lacks asks for nothing.
Clause = tuple[Bound, ...]


def during(start: datetime, end: datetime) -> tuple[Clause, ...]:
    """start <= time < end, and the days that this may be in."""
    last = end - INSTANT if end > _EARLIEST else end
    return (
        (Bound("time", start, last),),
        (Bound("date", day_of(start), day_of(last)),),
    )


def exactly(column: str, value: str) -> Clause:
    return (Bound(column, value, value),)


def day_of(time: datetime) -> str:
    return time.astimezone(UTC).date().isoformat() if time > _EARLIEST else "0001-01-01"


def row_filter(clauses: Sequence[Clause], names: Collection[str]) -> Any | None:
    """As an expression over a table with these columns; None asks for nothing."""
    found = None
    for clause in clauses:
        if any(bound.column not in names for bound in clause):
            continue
        either = None
        for bound in clause:
            either = _or(either, _expression(bound))
        found = either if found is None else found & either
    return found


def file_mask(statistics: Any, clauses: Sequence[Clause]) -> NDArray[np.bool_]:
    """Which files may hold such a row, by the add actions of the table's log, one row a file."""
    mask = np.ones(statistics.num_rows, dtype=bool)
    for clause in clauses:
        either = np.zeros(statistics.num_rows, dtype=bool)
        for bound in clause:
            either |= _may_hold(statistics, bound)
        mask &= either
    return mask


_EARLIEST = datetime(1, 1, 3, tzinfo=UTC)


def _or(left: Any | None, right: Any) -> Any:
    return right if left is None else left | right


def _expression(bound: Bound) -> Any:
    field, found = pc.field(bound.column), pc.scalar(True)
    if bound.least is not None:
        found = field >= _scalar(bound.least)
    if bound.most is not None:
        upper = field <= _scalar(bound.most)
        found = upper if bound.least is None else found & upper
    return found | field.is_null() if bound.or_null else found


def _may_hold(statistics: Any, bound: Bound) -> NDArray[np.bool_]:
    """True where the statistics do not say."""
    mask = np.ones(statistics.num_rows, dtype=bool)
    least, most = _extremes(statistics, bound.column)
    if bound.most is not None and least is not None:
        mask &= _known(pc.less_equal(least, _scalar(bound.most)))
    if bound.least is not None and most is not None:
        lower = bound.least
        if isinstance(lower, datetime) and lower > _EARLIEST:
            lower -= ROUNDED
        mask &= _known(pc.greater_equal(most, _scalar(lower)))
    if bound.or_null and f"null_count.{bound.column}" in statistics.column_names:
        mask |= _known(pc.greater(statistics[f"null_count.{bound.column}"], 0))
    return mask


def _extremes(statistics: Any, column: str) -> tuple[Any | None, Any | None]:
    names = statistics.column_names
    if f"partition.{column}" in names:
        value = statistics[f"partition.{column}"]
        return value, value
    found = [
        statistics[name] if name in names else None for name in (f"min.{column}", f"max.{column}")
    ]
    return found[0], found[1]


def _known(answers: Any) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = answers.fill_null(True).to_numpy(zero_copy_only=False)
    return result.astype(bool)


def _scalar(value: datetime | str) -> Any:
    return pa.scalar(value, TIME if isinstance(value, datetime) else pa.string())
