"""Rows of a person or a device are forgotten: in the tables, in every file, and in the log.

Deleting rows writes new files without them; the old ones stay on the disk, the smallest and the
largest id of each stand in the table's log, and the deletion itself is noted there with what was
asked for. All of that goes too. Killed anywhere, the same call again does the rest: predictions
are deleted last, so that a key still leads to its labels. A key may be in use meanwhile: only the
rows that were found by it go, with their labels; what came after is told, whole, by `left`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from homeostat.journal.delta import table_log
from homeostat.journal.delta.files import Progress, files_of, silent
from homeostat.journal.delta.tables import TableRef, open_table
from homeostat.journal.encoding import arrays
from homeostat.journal.encoding.schema import EPOCH
from homeostat.journal.forgetting.disk_files import files_on_disk, remove_dead, rows_in
from homeostat.journal.keeping.deletion import delete, one_of, timestamp

ID, KEY = "prediction_id", "key"
# In this order rows are erased: predictions last, since a key leads to the others through them.
ORDER = ("labels", "quarantine", "predictions")
AT_ONCE = 2000  # ids in one predicate
UNFINISHED = timedelta(minutes=10)  # a commit takes seconds; no file without one is younger


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to forget; keys as they are stored, hashed where the settings say so."""

    ids: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Found:
    """Rows of predictions, in any file: their ids, and when they were predicted."""

    ids: frozenset[str] = frozenset()
    times: tuple[datetime, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Erased:
    """What went from one table; replaced files may have held the same row more than once."""

    rows: int = 0
    files: int = 0
    bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """How long to wait for commits that may be under way, and by which clock."""

    unfinished: timedelta = UNFINISHED
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))


def matching(wanted: Wanted, *, keys: bool = True, among: Collection[str] | None = None) -> Any:
    """The filter for rows, as an expression; without keys for tables that have none. `among`: by
    their keys only rows with one of these ids."""
    by_id = _any_of(ID, wanted.ids)
    if not keys or not wanted.keys:
        return by_id
    by_key = _any_of(KEY, wanted.keys)
    return by_id | (by_key if among is None else by_key & _any_of(ID, among))


def find(predictions: TableRef, wanted: Wanted, progress: Progress = silent) -> Found:
    """Rows that are wanted, in the table or in a file it once consisted of."""
    matches = _search(predictions, matching(wanted), progress)
    times = {moment for table in matches.values() for moment in _times(table, "time")}
    ids = {each for table in matches.values() for each in table[ID].to_pylist()}
    return Found(ids=frozenset(ids), times=tuple(sorted(times)))


def erase(
    tables: dict[str, TableRef],
    wanted: Wanted,
    found: Found,
    *,
    waiting: Waiting | None = None,
    progress: Progress = silent,
) -> dict[str, Erased]:
    """Erase the rows that are wanted by id, and those found by key, from all tables, by name.
    Raises JournalUnavailable."""
    waiting = waiting or Waiting()
    ids = Wanted(ids=wanted.ids | found.ids)
    erased = {}
    for name in ORDER:
        of = wanted if name == "predictions" else ids
        erased[name] = _erase(tables[name], of, found.ids, waiting, progress)
    return erased


def left(
    tables: dict[str, TableRef], wanted: Wanted, progress: Progress = silent
) -> dict[str, int]:
    """Rows that are wanted and in some file of the tables, by name; tables without are left out."""
    found = {}
    for name in ORDER:
        where = matching(wanted, keys=name == "predictions")  # another's key is something else
        matches = _search(tables[name], where, progress)
        if matches:
            found[name] = sum(len(rows) for rows in matches.values())
    return found


def _erase(
    table: TableRef,
    wanted: Wanted,
    among: Collection[str],
    waiting: Waiting,
    progress: Progress,
) -> Erased:
    handle = open_table(table)
    if handle is None or not (wanted.ids or wanted.keys):
        return Erased()
    if not any(column.name == KEY for column in handle.schema().fields):
        wanted = Wanted(ids=wanted.ids)
    where = matching(wanted, among=among)
    matches = _search(table, where, progress)
    predicates = _predicates(table, matches, wanted)
    live = {file.path for file in files_of(table, handle)}
    for done, predicate in enumerate(predicates):
        progress(f"deleting from {_named(table)}", done, len(predicates))
        delete(table, predicate)

    def holds(path: str) -> bool:
        found = matches.get(path)
        if found is None:
            found = rows_in(table, path, _schema(table), where)
        return found is None or len(found) > 0

    gone = remove_dead(
        table, holds, unfinished=waiting.unfinished, clock=waiting.clock, progress=progress
    )
    table_log.scrub(table)
    rows = sum(len(found) for path, found in matches.items() if path in live)
    return Erased(rows=rows, files=gone.files, bytes=gone.bytes)


def _search(table: TableRef, where: Any, progress: Progress) -> dict[str, Any]:
    """By file: the ids and times of the rows that match, where there are any."""
    found = {}
    files = files_on_disk(table)
    for done, file in enumerate(files):
        progress(f"looking through {_named(table)}", done, len(files))
        rows = rows_in(table, file.path, _schema(table), where)
        if rows is not None and len(rows):
            found[file.path] = rows
    return found


def _schema(table: TableRef) -> Any:
    return pa.schema([(ID, pa.string()), (KEY, pa.string()), (table.time_column, arrays.TIME)])


def _predicates(table: TableRef, matches: dict[str, Any], wanted: Wanted) -> list[str]:
    """SQL, a day at a time, with the times between which the rows lie."""
    by_day: dict[str, list[Any]] = {}
    for path, rows in matches.items():
        by_day.setdefault(_day_of(path), []).append(rows)
    predicates = []
    for day, parts in sorted(by_day.items()):
        rows = pa.concat_tables(parts)
        column, times = table.time_column, _times(rows, table.time_column)
        within = f"{column} >= {timestamp(min(times))} AND {column} <= {timestamp(max(times))}"
        if table.partition_by:
            within = f"date = '{day}' AND {within}"
        predicates += [f"{within} AND {each}" for each in _chosen(rows, wanted)]
    return predicates


def _chosen(rows: Any, wanted: Wanted) -> Iterator[str]:
    """SQL for the rows that were found, some at a time: by their ids; by id and key, where an id
    was not asked for, and may be another's row as well."""
    found = sorted(set(zip(rows[ID].to_pylist(), rows[KEY].to_pylist(), strict=True)), key=str)
    by_id = sorted({id_ for id_, _ in found} & wanted.ids)
    by_key = [(id_, key) for id_, key in found if id_ not in wanted.ids]
    for at in range(0, len(by_id), AT_ONCE):
        yield one_of(ID, by_id[at : at + AT_ONCE])
    for at in range(0, len(by_key), AT_ONCE):
        ids, keys = (sorted(set(each)) for each in zip(*by_key[at : at + AT_ONCE], strict=True))
        yield f"{one_of(ID, ids)} AND {one_of(KEY, keys)}"


def _any_of(column: str, values: Collection[str]) -> Any:
    return pc.field(column).isin(pa.array(sorted(values), pa.string()))


def _times(rows: Any, column: str) -> list[datetime]:
    moments = rows[column].cast(pa.int64()).to_pylist()
    return [EPOCH + timedelta(microseconds=moment) for moment in moments if moment is not None]


def _day_of(path: str) -> str:
    return path.partition("date=")[2].partition("/")[0]


def _named(table: TableRef) -> str:
    return table.url.rpartition("/")[2]
