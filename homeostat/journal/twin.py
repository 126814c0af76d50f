"""The prediction log in memory: writer and reader in one, for tests and for trying things out.

Rows and labels are kept until `flush`, as the real writer's are until their commit; then they are
read by the same code as Delta tables are. Nothing of it outlives the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from homeostat.journal.delta import tables
from homeostat.journal.delta.bounds import Clause
from homeostat.journal.delta.commits import Unstorable, fit
from homeostat.journal.delta.snapshot import Snapshot
from homeostat.journal.delta.tables import TableRef
from homeostat.journal.encoding import constants
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.encoding.encoder import PredictionEncoder
from homeostat.journal.encoding.message import Encoded
from homeostat.journal.encoding.recording import Recording
from homeostat.journal.encoding.schema import encode_labels, microseconds
from homeostat.journal.reader import Journal
from homeostat.journal.writer import SpoolLevel
from homeostat.records import Label, Task

URL, WRITER = "memory", "memory"
EVERYTHING = Recording()


class MemoryJournal(Journal):
    """The methods of JournalWriter and Journal, over one model's tables. Thread-safe."""

    def __init__(
        self,
        model: str,
        task: Task,
        *,
        recording: Recording = EVERYTHING,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._memory = MemoryStore()
        super().__init__(URL, model, task, store=self._memory)
        self._clock = clock
        self._encoder = PredictionEncoder(task, recording)
        self._lock = threading.Lock()
        self._waiting: list[tuple[TableRef, Any]] = []
        self._received = self._stored = self._rejected = self._sampled_out = self._labels = 0
        self._commits = self._last_label_us = 0

    def start(self) -> None:
        """Nothing was left by an earlier process."""

    def append(self, batch: PredictionBatch, wait: float = 0.0) -> None:
        """There is always room, so it never waits."""
        if not batch.ids:
            return
        encoded = self._encoder.encode(batch)
        with self._lock:
            self._received += len(batch.ids)
            self._sampled_out += len(batch.ids) - (0 if encoded is None else encoded.rows)
            if encoded is not None:
                self._waiting.append((self._log.predictions, _decoded(encoded)))

    def label(self, labels: Sequence[Label]) -> None:
        if not labels:
            return
        with self._lock:
            self._last_label_us = max(self._last_label_us + 1, microseconds(self._clock()))
            batch = encode_labels(labels, self._last_label_us)
            self._waiting.append((self._log.labels, pa.Table.from_batches([batch])))
            self._labels += len(labels)

    def flush(self) -> None:
        """Rows that fit no table are counted as rejected, and are gone."""
        with self._lock:
            for table, data in self._waiting:
                self._commit(table, data)
            self._waiting = []

    def level(self) -> SpoolLevel:
        with self._lock:
            waiting = [data for table, data in self._waiting if table is self._log.predictions]
            return SpoolLevel(
                received=self._received,
                recovered=0,
                stored=self._stored,
                dropped=0,
                rejected=self._rejected,
                sampled_out=self._sampled_out,
                waiting=sum(data.num_rows for data in waiting),
                labels=self._labels,
                memory_bytes=sum(data.nbytes for data in waiting),
                spool_bytes=0,
                oldest=None,
                errors=0,
            )

    def close(self) -> None:
        self.flush()

    def forget(self, ids: Collection[str] = (), keys: Collection[str] = ()) -> int:
        """Rows with these ids or keys go, with their labels; how many those were."""
        log = self._log
        with self._lock:
            gone = self._memory.delete(log.predictions, {"prediction_id": ids, "key": keys})
            theirs = {*ids, *gone["prediction_id"].to_pylist()}
            for table in (log.labels, log.quarantine):
                self._memory.delete(table, {"prediction_id": theirs})
        return int(gone.num_rows)

    def _commit(self, table: TableRef, data: Any) -> None:
        predictions = table is self._log.predictions
        self._commits += 1
        dated = tables.with_partitions(data, table)
        try:
            self._memory.commit(table, dated, app_id=WRITER, version=self._commits)
        except Unstorable:
            self._rejected += data.num_rows
            return
        if predictions:
            self._stored += data.num_rows


@dataclass
class _Kept:
    rows: Any
    versions: dict[str, int] = field(default_factory=dict)


class MemoryStore:
    """Tables by their place. Thread-safe: a table is replaced, never changed."""

    def __init__(self) -> None:
        self._tables: dict[str, _Kept] = {}
        self._lock = threading.Lock()

    def open(self, table: TableRef) -> Snapshot | None:
        kept = self._tables.get(table.url)
        if kept is None:
            return None
        rows, versions = kept.rows, dict(kept.versions)

        def dataset_of(within: Sequence[Clause]) -> Any:
            import pyarrow.dataset as ds

            return ds.dataset(rows)

        return Snapshot(
            table,
            rows.schema,
            _statistics(rows),
            dataset_of,
            lambda app_id: versions.get(app_id, -1),
        )

    def columns(self, table: TableRef) -> Any | None:
        kept = self._tables.get(table.url)
        return None if kept is None else kept.rows.schema

    def commit(self, table: TableRef, data: Any, *, app_id: str, version: int) -> bool:
        with self._lock:
            kept = self._tables.get(table.url) or _Kept(table.schema.empty_table())
            if version <= kept.versions.get(app_id, -1):
                return False
            fitted = fit(data, kept.rows.schema)
            rows = pa.concat_tables([kept.rows, fitted], promote_options="default")
            self._tables[table.url] = _Kept(rows, kept.versions | {app_id: version})
            return True

    def committed(self, table: TableRef, app_id: str) -> int:
        kept = self._tables.get(table.url)
        return -1 if kept is None else kept.versions.get(app_id, -1)

    def delete(self, table: TableRef, wanted: dict[str, Collection[str]]) -> Any:
        """The rows that have one of these values in one of these columns, which are there no
        longer."""
        with self._lock:
            kept = self._tables.get(table.url)
            if kept is None:
                return table.schema.empty_table()
            named = pa.array([False] * kept.rows.num_rows, pa.bool_())
            for column, values in wanted.items():
                known = pa.array(sorted(values), pa.string())
                found = pc.is_in(kept.rows[column], value_set=known).combine_chunks()
                named = pc.or_(named, found)
            gone = kept.rows.filter(named)
            self._tables[table.url] = _Kept(kept.rows.filter(pc.invert(named)), kept.versions)
            return gone


def _decoded(encoded: Encoded) -> Any:
    stream = pa.ipc.open_stream(encoded.layout.start + encoded.data)
    return constants.spread(stream.read_all().combine_chunks())


def _statistics(rows: Any) -> Any:
    """What Delta's log would tell of one file."""
    found: dict[str, list[Any]] = {"num_records": [rows.num_rows]}
    for name in ("time", "weight"):
        if name in rows.column_names:
            extremes = pc.min_max(rows[name]).as_py()
            found |= {f"min.{name}": [extremes["min"]], f"max.{name}": [extremes["max"]]}
    return pa.table(found)
