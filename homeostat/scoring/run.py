"""A run of batch scoring from its beginning to its end, or on from where a kill ended it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from homeostat.errors import Conflict
from homeostat.identifiers import uuid7
from homeostat.journal.encoding.recording import Recording
from homeostat.records import VersionRef
from homeostat.scoring.inputs import open_input
from homeostat.scoring.job import Job, Options, PartDone, Places, differences
from homeostat.scoring.ledger import Finished, Ledger, ledger_of
from homeostat.scoring.parts import Input
from homeostat.scoring.processes import Plan, results
from homeostat.scoring.publishing import Publishing, put_together, write_bad_rows
from homeostat.scoring.worker import Work
from homeostat.settings import Settings

Progress = Callable[[int, int, int], None]  # done of total, rows so far
Loaded = Callable[[str], None]  # the version


@dataclass(frozen=True, kw_only=True)
class Outcome:
    version: str
    rows: int
    bad: int
    rows_before: int  # of them, by an earlier run of the same command
    seconds: float  # of this one, since the model was loaded
    output: Path
    bad_rows: Path | None


@dataclass(frozen=True, kw_only=True)
class Request:
    """`find_version` is asked once, when a run begins: one that goes on keeps its version."""

    settings: Settings
    recording: Recording
    output: Path
    options: Options
    find_version: Callable[[], VersionRef]
    wanted: str | None  # the version the caller named
    processes: int | None = None
    restart: bool = False
    name: str = ""  # of several runs that append to one table

    @property
    def places(self) -> Places:
        return Places(self.output, self.options.format, self.name)


def score(request: Request, progress: Progress, loaded: Loaded) -> Outcome:
    """Raises InputError where input, options and version do not fit, ModelError, Unavailable.
    After any of them, and after a kill, the same call goes on."""
    options, places = request.options, request.places
    with ledger_of(places, restart=request.restart) as ledger:
        job = _job(ledger, request)
        version = int(job.input_state.removeprefix("version ")) if _is_table(job) else None
        source = open_input(options.input, version=version)
        if source.state != job.input_state:
            raise Conflict(
                f"{options.input} was changed since {request.output} was begun; begin anew with "
                "--restart"
            )
        ended = ledger.finished()
        if ended is not None:
            return _outcome(ended, places, before=ended.rows, seconds=0.0)
        before = sum(part.rows for part in ledger.done())
        began = time.monotonic()

        def tell_loaded() -> None:
            nonlocal began
            began = time.monotonic()
            loaded(job.version.version)

        finished = _go_on(ledger, job, source, request, progress, tell_loaded)
        seconds = time.monotonic() - began
        return _outcome(finished, places, before=before, seconds=seconds)


def _is_table(job: Job) -> bool:
    return job.input_state.startswith("version ")


def _job(ledger: Ledger, request: Request) -> Job:
    """The run that was begun, or a new one: also where one was begun, and nothing of it done."""
    found = ledger.job()
    if found is None or not (ledger.done() or ledger.finished()):
        job = Job(
            run=uuid7(),
            options=request.options,
            model=request.settings.model.name,
            version=request.find_version(),
            input_state=open_input(request.options.input).state,
            started_ms=time.time_ns() // 1_000_000,
        )
        ledger.begin(job)
        return job
    if changes := differences(found, request.options, request.wanted):
        raise Conflict(
            f"{request.output} was begun with other options ({'; '.join(changes)}): give the same "
            "ones, name another OUTPUT (of a Delta table: another --run), or begin anew with "
            "--restart"
        )
    return found


def _go_on(
    ledger: Ledger,
    job: Job,
    source: Input,
    request: Request,
    progress: Progress,
    loaded: Callable[[], None],
) -> Finished:
    settings = request.settings
    places = request.places
    work = Work(
        job=job, places=places, source=source, settings=settings, recording=request.recording
    )
    publishing = Publishing(job, places, journal=settings.journal_path, task=settings.model.task)
    done = {part.number: part for part in ledger.done()}
    size, rows = sum(part.size for part in done.values()), sum(p.rows for p in done.values())
    progress(size, source.total, rows)
    for number in sorted(done):
        publishing.add(done[number])
    left = (part for part in source.parts() if part.number not in done)
    plan = Plan(work=work, total=source.total - size, processes=request.processes, loaded=loaded)
    for part in results(left, plan):
        ledger.add(part)
        done[part.number] = part
        publishing.add(part)
        size, rows = size + part.size, rows + part.rows
        progress(size, source.total, rows)
    return _finish(ledger, job, source, places, [done[number] for number in sorted(done)])


def _finish(
    ledger: Ledger, job: Job, source: Input, places: Places, done: list[PartDone]
) -> Finished:
    finished = Finished(
        version=job.version.version,
        rows=sum(part.rows for part in done),
        bad=sum(part.bad for part in done),
        parts=len(done),
        seconds=sum(part.seconds for part in done),
    )
    if places.single:
        put_together(places, done, _empty(job))
    if finished.bad:
        write_bad_rows(places, done, source)
    ledger.finish(finished)
    return finished


def _empty(job: Job) -> pa.Table:
    """Of a run in which no row was answered."""
    names = [f"{job.options.prefix}{name}" for name in ("prediction_id", "model_version")]
    fields = [pa.field(name, pa.string()) for name in names]
    return pa.schema(
        [*fields, pa.field(f"{job.options.prefix}prediction", pa.string())]
    ).empty_table()


def _outcome(finished: Finished, places: Places, *, before: int, seconds: float) -> Outcome:
    return Outcome(
        version=finished.version,
        rows=finished.rows,
        bad=finished.bad,
        rows_before=before,
        seconds=seconds,
        output=places.output,
        bad_rows=places.bad_rows if finished.bad else None,
    )
