"""One table as it stood at one moment: of it, only the files, row groups and columns needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake.exceptions import DeltaError

from homeostat.errors import JournalUnavailable
from homeostat.journal.delta import storage
from homeostat.journal.delta.bounds import ROUNDED, Clause, file_mask, row_filter
from homeostat.journal.delta.tables import TableRef, open_table, reaching
from homeostat.journal.encoding.arrays import TIME

T = TypeVar("T")

LATEST = datetime(9999, 12, 31, tzinfo=UTC)
TRIES = 5  # of a reading under which files are deleted

_UNREAD = {"deletionVectors", "columnMapping"}  # features of Delta that other engines may add


@dataclass(frozen=True, kw_only=True)
class Span:
    """Rows that lie together, and the times among them as far as the log tells."""

    rows: int
    least: datetime | None  # to the millisecond below
    most: datetime | None  # likewise: a row may be up to a millisecond newer


class Snapshot:
    """A version of a table. Columns that its rows should have and the table lacks read as null.

    `dataset_of` gives the dataset of the files that may hold rows within some clauses, and
    `statistics` one row a file, as Delta's add actions have them.
    """

    def __init__(
        self,
        table: TableRef,
        schema: Any,
        statistics: Any,
        dataset_of: Callable[[Sequence[Clause]], Any],
        version_of: Callable[[str], int],
    ) -> None:
        self.schema = schema
        self.names = frozenset(schema.names)
        self.statistics = statistics
        self.version_of = version_of  # the newest of a writer's commits; -1 for none
        self._table = table
        self._dataset_of = dataset_of

    def read(
        self, columns: Sequence[str], within: Sequence[Clause] = (), where: Any | None = None
    ) -> Any:
        """A pyarrow.Table of these columns. Raises JournalUnavailable."""
        there = [name for name in columns if name in self.names]
        with _reading(self._table):
            dataset = self._dataset_of(within)
            found = dataset.to_table(columns=there, filter=self._filter(within, where))
        return self._filled(found, columns)

    def stream(
        self, columns: Sequence[str], within: Sequence[Clause] = (), where: Any | None = None
    ) -> Iterator[Any]:
        """The same rows as pyarrow.Tables of one record batch, in bounded memory."""
        there = [name for name in columns if name in self.names]
        with _reading(self._table):
            dataset = self._dataset_of(within)
            # Few batches ahead: a row group of embeddings is large.
            scanner = dataset.scanner(
                columns=there,
                filter=self._filter(within, where),
                batch_readahead=2,
                fragment_readahead=2,
            )
            for batch in scanner.to_batches():
                if batch.num_rows:
                    yield self._filled(pa.Table.from_batches([batch]), columns)

    def pieces(self, within: Sequence[Clause]) -> list[Piece]:
        """The row groups that may hold such rows, by the least of their times."""
        with _reading(self._table):
            dataset = self._dataset_of(within)
            condition = row_filter(within, self.names)
            found = [
                piece
                for fragment in dataset.get_fragments()
                for piece in _row_groups(fragment, condition, self.schema)
            ]
        return sorted(found, key=lambda piece: piece.least)

    def read_piece(self, piece: Piece, columns: Sequence[str], within: Any, where: Any) -> Any:
        there = [name for name in columns if name in self.names]
        with _reading(self._table):
            found = piece.fragment.to_table(
                schema=self.schema, columns=there, filter=self._filter(within, where)
            )
        return self._filled(found, columns)

    def spans(self) -> list[Span]:
        """Of each file, newest first; a file of which nothing is told comes before all."""
        columns = [
            self.statistics[name].to_pylist()
            if name in self.statistics.column_names
            else [None] * self.statistics.num_rows
            for name in ("num_records", "min.time", "max.time")
        ]
        found = [
            Span(rows=rows or 0, least=least, most=most)
            for rows, least, most in zip(*columns, strict=True)
        ]
        return sorted(found, key=lambda span: span.most or LATEST, reverse=True)

    def least(self, column: str) -> Any | None:
        """The least value of a column by the statistics; None where they do not tell."""
        name = f"min.{column}"
        if name not in self.statistics.column_names or self.statistics[name].null_count:
            return None
        return pc.min(self.statistics[name]).as_py()

    def largest_weight(self, since: datetime) -> float:
        """Of the files with rows since then, as far as the statistics tell; 1 where they do not."""
        found = self.statistics
        if "max.weight" not in found.column_names:
            return 1.0
        if "max.time" in found.column_names:
            # statistics cut times to milliseconds
            there = pc.greater_equal(found["max.time"], pa.scalar(since - ROUNDED, TIME))
            found = found.filter(there.fill_null(True))
        return max(1.0, pc.max(found["max.weight"]).as_py() or 1.0)

    def _filter(self, within: Sequence[Clause], where: Any | None) -> Any | None:
        condition = row_filter(within, self.names)
        if where is None or condition is None:
            return condition if where is None else where
        return condition & where

    def _filled(self, found: Any, columns: Sequence[str]) -> Any:
        for name in columns:
            at = self._table.schema.get_field_index(name)
            if name not in self.names and at >= 0:
                nulls = pa.nulls(found.num_rows, self._table.schema.field(at).type)
                found = found.append_column(name, nulls)
        return found


@dataclass(frozen=True)
class Piece:
    """A part of a table that is read at once."""

    fragment: Any
    least: int  # microseconds: no row of it is older
    most: int  # and none newer


@contextmanager
def _reading(table: TableRef) -> Iterator[None]:
    with reaching(table):
        try:
            yield
        except pa.ArrowInvalid as problem:
            raise JournalUnavailable(
                f"a file of the journal's table {table.url} is damaged: {problem}"
            ) from problem


def open_snapshot(table: TableRef) -> Snapshot | None:
    """The newest version; None while no row was ever stored. Raises JournalUnavailable."""
    handle = open_table(table)
    if handle is None:
        return None
    with reaching(table):
        _refuse_unread(table, handle)
        schema = pa.schema(handle.schema().to_arrow())
        statistics = pa.table(handle.get_add_actions(flatten=True))

    def dataset_of(within: Sequence[Clause]) -> Any:
        chosen = statistics.filter(pa.array(file_mask(statistics, within)))
        return _dataset(table, schema, chosen)

    def version_of(app_id: str) -> int:
        version = handle.transaction_version(app_id)
        return -1 if version is None else version

    return Snapshot(table, schema, statistics, dataset_of, version_of)


def again(read: Callable[[], T]) -> T:
    """A file may be deleted under who reads it, by a vacuum, retention, or when rows are forgotten,
    in one table after the other: once more, then, from the tables as they are now. One that is gone
    for good is told after as many tries."""
    for _ in range(TRIES - 1):
        try:
            return read()
        except JournalUnavailable as problem:
            if not vanished(problem):
                raise
    return read()


def vanished(problem: JournalUnavailable) -> bool:
    """A file of the table, or a checkpoint of its log that a newer one has replaced."""
    cause = problem.__cause__
    if isinstance(cause, DeltaError):
        return "checkpoint" in str(cause).lower()
    return isinstance(cause, FileNotFoundError)


def _dataset(table: TableRef, schema: Any, chosen: Any) -> Any:
    """Of these files. Not deltalake's own: that one puts every statistic of every file into an
    expression, 4 ms a file where there are 100 columns."""
    import pyarrow.dataset as ds  # imports pandas, which who only writes must not

    options = ds.ParquetFragmentScanOptions(pre_buffer=True)
    parquet = ds.ParquetFileFormat(default_fragment_scan_options=options)
    store = storage.filesystem(table.url)
    fragments = [
        parquet.make_fragment(path, filesystem=store, partition_expression=expression)
        for path, expression in _placed(chosen)
    ]
    return ds.FileSystemDataset(fragments, schema, parquet, store)


def _placed(statistics: Any) -> Iterator[tuple[str, Any]]:
    """Each file's path and the values of its partition columns, oldest rows first."""
    if "min.time" in statistics.column_names:
        order = ("min.time", "modification_time", "path")  # and of one moment, as they came
        statistics = statistics.sort_by([(name, "ascending") for name in order])
    prefix = "partition."
    parts = [name for name in statistics.column_names if name.startswith(prefix)]
    values = [statistics[name].to_pylist() for name in parts]
    for at, path in enumerate(statistics["path"].to_pylist()):
        expression = pc.scalar(True)
        for name, column in zip(parts, values, strict=True):
            field = pc.field(name.removeprefix(prefix))
            one = field.is_null() if column[at] is None else field == column[at]
            expression = one if name == parts[0] else expression & one
        yield unquote(path), expression


def _row_groups(fragment: Any, condition: Any | None, schema: Any) -> Iterator[Piece]:
    if not hasattr(fragment, "split_by_row_group"):
        yield Piece(fragment, _OLDEST, _NEWEST)
        return
    for part in fragment.split_by_row_group(condition, schema):
        times = (part.row_groups[0].statistics or {}).get("time", {})
        least, most = times.get("min"), times.get("max")
        yield Piece(
            part,
            _OLDEST if least is None else _microseconds(least),
            _NEWEST if most is None else _microseconds(most),
        )


_OLDEST, _NEWEST = int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max) - 1


def _microseconds(time: datetime) -> int:
    value: int = pa.scalar(time, pa.timestamp("us", tz="UTC")).value
    return value


def _refuse_unread(table: TableRef, handle: Any) -> None:
    found = _UNREAD & set(handle.protocol().reader_features or ())
    if found:
        raise JournalUnavailable(
            f"another program has switched on {', '.join(sorted(found))} for the table "
            f"{table.url}, which cannot be read here: switch it off there"
        )
