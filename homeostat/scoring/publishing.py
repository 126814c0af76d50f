"""What was answered, on its way to where it belongs: a table, the log, one file. In this process
alone, and in the order of the parts: by that, each comes there once."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from homeostat.errors import HomeostatError, InputError
from homeostat.journal.batch_log import commit_part
from homeostat.journal.delta.commits import Unstorable
from homeostat.journal.delta.other_tables import append_once
from homeostat.records import Task
from homeostat.scoring.answers import writer_for
from homeostat.scoring.job import Job, PartDone, Places
from homeostat.scoring.parts import Input


class Publishing:
    """`add` parts as they are done; each goes out as soon as those before it have."""

    def __init__(self, job: Job, places: Places, *, journal: str, task: Task) -> None:
        self._job, self._places = job, places
        self._journal, self._task = journal, task
        self._next = 0
        self._waiting: dict[int, PartDone] = {}

    def add(self, done: PartDone) -> None:
        """Raises Unavailable where a store is away, and InputError where it takes no such rows."""
        self._waiting[done.number] = done
        while self._next in self._waiting:
            self._publish(self._waiting.pop(self._next))
            self._next += 1

    def _publish(self, done: PartDone) -> None:
        log, answers = self._places.log(done.name), self._places.part(done.name)
        if log.exists():
            try:
                commit_part(
                    log,
                    url=self._journal,
                    model=self._job.model,
                    task=self._task,
                    run=self._job.run,
                    number=done.number,
                )
            except HomeostatError as error:
                raise _misfit(error, "log") from error
            log.unlink()
        if self._places.format == "delta" and answers.exists():
            try:
                rows = pq.read_table(answers)
                url = str(self._places.output)
                append_once(url, rows, app_id=f"score:{self._job.run}", version=done.number)
            except HomeostatError as error:
                raise _misfit(error, "table") from error
            answers.unlink()


def _misfit(error: HomeostatError, what: str) -> HomeostatError:
    if isinstance(error, Unstorable):
        return InputError(f"the {what} does not take the rows: {error}")
    return error


def put_together(places: Places, done: list[PartDone], empty: Any) -> None:
    """One file of all parts, there when it is whole. `empty` is a table without rows, for an
    output in which no row was answered."""
    files = [path for part in done if (path := places.part(part.name)).exists()]
    partial = places.state / f"whole.{os.getpid()}.part"
    try:
        with partial.open("wb") as file:
            if places.format == "csv":
                _texts(files, file, empty)
            else:
                _tables(files, file, empty)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(places.output)
    finally:
        partial.unlink(missing_ok=True)


def _texts(files: list[Path], out: Any, empty: Any) -> None:
    if not files:
        pacsv.write_csv(empty, out)
    for at, path in enumerate(files):
        with path.open("rb") as file:
            head = file.readline()  # no name of a column has a newline in it
            if at == 0:
                out.write(head)
            while piece := file.read(1 << 20):
                out.write(piece)


def _tables(files: list[Path], out: Any, empty: Any) -> None:
    schema = pq.read_schema(files[0]) if files else empty.schema
    writer = writer_for(Path("whole.parquet"), out, schema)
    for path in files:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                writer.write_table(file.read_row_group(group).cast(schema))
    writer.close()


def write_bad_rows(places: Places, done: list[PartDone], source: Input) -> None:
    """One file: row numbers count from 0 within each file, without the line of names."""
    partial = places.state / f"bad.{os.getpid()}.part"
    with partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "row", "column", "problem"])
        writer.writerows(_bad_rows(places, done, source))
    partial.replace(places.bad_rows)


def _bad_rows(places: Places, done: list[PartDone], source: Input) -> Iterator[list[Any]]:
    before, last = 0, -1
    for part in done:
        file = int(part.name.partition("-")[0])
        if file != last:
            before, last = 0, file
        path = places.bad(part.name)
        if part.bad and path.exists():
            with path.open() as lines:
                for line in lines:
                    bad = json.loads(line)
                    name = source.files[file]
                    yield [name, before + bad["row"], bad["column"], bad["problem"]]
        before += part.rows
