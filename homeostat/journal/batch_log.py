"""Rows that a batch run predicted, on their way to the log: each part of a run once.

Whoever predicts writes a part's rows to a file; one process commits the files in the order of
their numbers, under an application id of the run's own. What was committed before a kill is not
committed again.
"""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa

from homeostat.journal.delta import commits, tables
from homeostat.journal.encoding import constants
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.encoding.encoder import PredictionEncoder
from homeostat.journal.encoding.recording import Recording
from homeostat.records import Task


class PartRows:
    """The rows of one part, as they will stand in the log."""

    def __init__(self, task: Task, recording: Recording) -> None:
        self._encoder = PredictionEncoder(task, recording)
        self._tables: list[pa.Table] = []

    def add(self, batch: PredictionBatch) -> None:
        """Raises InputError for rows that cannot be logged."""
        encoded = self._encoder.encode(batch)
        if encoded is not None:
            stream = pa.BufferReader(encoded.layout.start + encoded.data)
            rows = constants.spread(pa.ipc.open_stream(stream).read_all())
            self._tables.append(rows.replace_schema_metadata())

    def write(self, path: Path) -> None:
        """The file is there when it is whole; it is none where no row is logged."""
        if not self._tables:
            path.unlink(missing_ok=True)
            return
        rows = pa.concat_tables(self._tables, promote_options="default")
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        with partial.open("wb") as file:
            with pa.ipc.new_file(file, rows.schema) as writer:
                writer.write_table(rows)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def commit_part(path: Path, *, url: str, model: str, task: Task, run: str, number: int) -> None:
    """Raises JournalUnavailable, and Unstorable for rows that do not fit the log's columns. Parts
    are given in rising order of their numbers."""
    target = tables.predictions(url, model, task)
    with pa.OSFile(str(path)) as file:
        rows = tables.with_partitions(pa.ipc.open_file(file).read_all(), target)
    commits.commit(target, rows, app_id=f"score:{run}", version=number)
