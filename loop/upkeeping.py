"""The upkeep of the log's tables: started when due, as a job, and written down when it ends."""

from __future__ import annotations

import logging
import shutil
from datetime import datetime, timedelta
from pathlib import Path

from homeostat import events as types
from homeostat.errors import HomeostatError, JobError
from homeostat.jobs import SPEC, UpkeepJob, UpkeepResult, read_result, write_atomically
from homeostat.records import to_json
from homeostat.state import events, upkeeps
from homeostat.state.upkeeps import Upkeep
from loop import measuring, upkeep_lease
from loop.context import Context

log = logging.getLogger(__name__)

JOB = "upkeep"
LIMIT = timedelta(hours=2)
FIRST_REST = timedelta(minutes=1)  # after a failure; doubled at each further one
WORTH_TELLING = 3  # failures in a row: a store that was away for a while is no news


def advance(context: Context, now: datetime) -> None:
    """Start it, look whether it has ended, or neither. The schedule is read from the state."""
    with context.state.begin() as tx:
        upkeep = upkeeps.standing(tx, context.model, now)
    measuring.kept(context, upkeep)
    if upkeep.started_at is not None:
        _collect(context, now)
    elif due_at(upkeep, context.settings.journal.upkeep_every) <= now:
        _begin(context, upkeep, now)


def due_at(upkeep: Upkeep, every: timedelta) -> datetime:
    """A while after the last one ended; sooner where that one failed."""
    if upkeep.failures == 0:
        return upkeep.ended_at + every
    return upkeep.ended_at + min(every, FIRST_REST * (1 << min(upkeep.failures - 1, 20)))


def _begin(context: Context, upkeep: Upkeep, now: datetime) -> None:
    if not upkeep_lease.take(context.state, context.model, now):
        return  # a person does it by hand
    folder = _folder(context)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job = UpkeepJob(project=str(context.settings.project), since=upkeep.done_at)
    write_atomically(folder / SPEC, to_json(job))
    with context.state.begin() as tx:
        upkeeps.begin(tx, context.model, now)
    _start_job(context)


def _collect(context: Context, now: datetime) -> None:
    folder = _folder(context)
    exit_ = context.executor.poll(JOB) if context.executor.knows(JOB) else None
    if exit_ is None and context.executor.knows(JOB):
        upkeep_lease.take(context.state, context.model, now)
        return
    try:
        result = read_result(folder, UpkeepResult)
        if result is None and exit_ is None and (folder / SPEC).exists():
            if upkeep_lease.take(context.state, context.model, now):
                log.info("An upkeep of the log was cut off; starting it again.")
                _start_job(context)
            return
        if result is None:
            how = exit_.describe(LIMIT.total_seconds()) if exit_ else "lost its job folder"
            raise JobError(f"the upkeep {how}", tail=exit_.tail if exit_ else "")
    except HomeostatError as error:
        _failed(context, error, now)
    else:
        _done(context, result, now)
    upkeep_lease.release(context.state, context.model)
    shutil.rmtree(folder, ignore_errors=True)


def _done(context: Context, result: UpkeepResult, now: datetime) -> None:
    with context.state.begin() as tx:
        upkeeps.finish(tx, context.model, result, now)
        measuring.kept(context, upkeeps.standing(tx, context.model, now))
    log.info(
        "The log has %d rows in %d files; %d files were put together into %d, %d rows deleted.",
        result.rows,
        result.files,
        result.files_replaced,
        result.files_written,
        result.expired_rows,
    )


def _failed(context: Context, error: HomeostatError, now: datetime) -> None:
    tail = str(getattr(error, "tail", ""))[-2000:]
    with context.state.begin() as tx:
        failures = upkeeps.fail(tx, context.model, f"{error}\n{tail}".strip(), now)
        if failures == WORTH_TELLING:
            events.record(tx, types.UPKEEP_FAILED, context.model, now, error=str(error), tail=tail)
    log.error("The upkeep of the log failed (%d in a row): %s %s", failures, error, tail)


def _start_job(context: Context) -> None:
    context.executor.start_job(
        JOB,
        "homeostat.journal",
        "upkeep",
        folder=_folder(context),
        limit=LIMIT.total_seconds(),
    )


def _folder(context: Context) -> Path:
    return context.settings.jobs_path / JOB
