"""A file of labels into the labels table: each once, though the import be killed and run again.

The file is cut into chunks by its rows. A chunk is one commit, numbered under an application id
made of the file's content: what the table has seen of it is where the next run goes on. The table
forgets such numbers after a while (`table_log.DATED_VERSIONS_KEPT`), or they would pile up.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import pyarrow as pa

from homeostat.errors import InputError
from homeostat.journal.delta import tables
from homeostat.journal.delta.commits import commit, committed
from homeostat.journal.delta.files import Progress
from homeostat.journal.delta.writers import writers
from homeostat.journal.encoding.schema import encode_labels, microseconds
from homeostat.journal.importing import label_files
from homeostat.journal.importing.label_files import Row
from homeostat.journal.importing.label_matching import first_predicted
from homeostat.journal.importing.label_rows import Layout, label_of
from homeostat.journal.reading.label_join import CLOCKS
from homeostat.records import Label, Task

CHUNK = 50_000  # rows of a commit; another number would be another cut of the same file
LOOKED_UP = 500_000  # ids looked for in the predictions at once

MICROSECOND = timedelta(microseconds=1)
NO_PREDICTION = "no prediction has this id"
TOO_OLD = "came, and is, more than an hour before the prediction with this id: never joined to it"

Tell = Callable[[int, str, str], None]  # line, id, what is wrong with it


@dataclass(frozen=True, kw_only=True)
class Imported:
    rows: int
    stored: int  # labels, by this run
    before: int  # labels that an earlier run of the same import had stored
    refused: int
    unmatched: int  # labels stored whose prediction is not in the log (yet)
    too_old: int  # labels stored that are older than the prediction with their id: of another row
    names: dict[str, int]  # labels in the file, by name


class Import:
    """One file on its way into one journal."""

    def __init__(
        self,
        *,
        url: str,
        model: str,
        task: Task,
        file: Path,
        layout: Layout,
        tell: Tell,
        progress: Progress,
    ) -> None:
        label_files.check(file)
        self._file = file
        self._columns = layout.wanted(label_files.columns(file))
        self._layout = replace(layout, typed=label_files.typed(file))
        self._task = task
        self._labels = tables.labels(url, model)
        self._predictions = tables.predictions(url, model, task)
        self._tell = tell
        self._progress = progress
        self._looked_for: dict[str, list[tuple[int, int]]] = {}  # by id: line, since when known
        self._stored = self._before = self._refused = self._rows = 0
        self._unmatched = self._too_old = 0
        self._names: Counter[str] = Counter()

    def run(self, now: datetime) -> Imported:
        """Raises InputError where the file is not what it seemed, JournalUnavailable; both leave
        what was stored, and the next run goes on from there."""
        size, state = label_files.size(self._file), self._state()
        app_id = f"file:{self._fingerprint()}"
        done = committed(self._labels, app_id)
        earlier = now if done < 0 else self._last_run(app_id) or now
        for number, rows in enumerate(self._chunks()):
            labels = self._read(rows, now, received=earlier if number <= done else now)
            if self._state() != state:
                raise InputError(f"{self._file} was changed while it was read; import it again")
            if labels and number <= done:
                self._before += len(labels)
            elif labels:
                self._store(labels, app_id, number, now)
            if len(self._looked_for) >= LOOKED_UP:
                self._look_up()
            self._progress("importing", rows[-1].place, size)
        self._look_up()
        return Imported(
            rows=self._rows,
            stored=self._stored,
            before=self._before,
            refused=self._refused,
            unmatched=self._unmatched,
            too_old=self._too_old,
            names=dict(self._names),
        )

    def _chunks(self) -> Iterator[list[Row]]:
        rows = label_files.rows(self._file, self._columns)
        while chunk := list(islice(rows, CHUNK)):
            yield chunk

    def _last_run(self, app_id: str) -> datetime | None:
        """When an earlier run of this import stored its last labels."""
        return {each.writer: each.last_commit for each in writers(self._labels)}.get(app_id)

    def _read(self, rows: list[Row], now: datetime, *, received: datetime) -> list[Label]:
        self._rows += len(rows)
        labels = []
        for row in rows:
            try:
                if row.problem:
                    raise ValueError(row.problem)
                label = label_of(row.values, self._layout, self._task, now)
            except ValueError as problem:
                self._refused += 1
                self._tell(row.line, str(row.values.get(self._layout.id) or ""), str(problem))
                continue
            labels.append(label)
            known = microseconds(max(label.time, received))
            self._looked_for.setdefault(label.prediction_id, []).append((row.line, known))
        self._names.update(label.name for label in labels)
        return labels

    def _store(self, labels: list[Label], app_id: str, number: int, now: datetime) -> None:
        # of labels with one time the later in the file wins, also over two chunks
        received = microseconds(now + timedelta(microseconds=number))
        data = pa.Table.from_batches([encode_labels(labels, received)])
        data = tables.with_partitions(data, self._labels)
        if commit(self._labels, data, app_id=app_id, version=number, dated=now):
            self._stored += len(labels)
        else:  # the same import runs twice at once
            self._before += len(labels)

    def _look_up(self) -> None:
        """Tell which labels belong to no prediction, in the order of the file."""
        first = first_predicted(self._predictions, list(self._looked_for))
        told = []
        for id_, given in self._looked_for.items():
            oldest = first.get(id_)
            for line, known in given:
                if oldest is None:
                    told.append((line, id_, NO_PREDICTION))
                elif known < oldest - CLOCKS // MICROSECOND:
                    told.append((line, id_, TOO_OLD))
        for line, id_, problem in sorted(told):
            self._tell(line, id_, problem)
        problems = Counter(problem for _, _, problem in told)
        self._unmatched += problems[NO_PREDICTION]
        self._too_old += problems[TOO_OLD]
        self._looked_for = {}

    def _state(self) -> tuple[int, int, int]:
        stat = self._file.stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def _fingerprint(self) -> str:
        """Of the content and of how it is read: another column is another import."""
        with self._file.open("rb") as data:
            content = hashlib.file_digest(data, "sha256").hexdigest()
        how = json.dumps([content, asdict(self._layout), CHUNK], sort_keys=True)
        return hashlib.sha256(how.encode()).hexdigest()[:32]
