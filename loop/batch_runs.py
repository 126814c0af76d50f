"""Batch scoring on a schedule: `homeostat score` as a child of the loop.

A run's output is named after the time it was due, and `homeostat score` knows by what lies beside
it whether it is finished: so nothing has to be written down, a loop that was killed goes on with
the run it was at, and no run is made twice. What was due while no loop ran is not made up for.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from homeostat.errors import JobError
from homeostat.executor import Exit
from homeostat.records import from_json
from homeostat.scoring.job import Places
from homeostat.scoring.ledger import Finished
from homeostat.settings import ScoreSettings
from loop.context import Context

log = logging.getLogger(__name__)

LIMIT = timedelta(hours=24)
SOME_BAD = 3  # exit status of `homeostat score`
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def advance(context: Context, section: ScoreSettings, now: datetime) -> None:
    """Start what is due, look whether it has ended, or neither. Raises JobError for a run that
    failed: the next call tries it again, or the one that is due by then."""
    name, executor = job_name(section), context.executor
    due = due_at(section, now)
    if executor.knows(name):
        exit_ = executor.poll(name)
        if exit_ is not None:
            _ended(context, section, exit_)
        return
    finished = _finished(section, due)
    if finished is not None:
        _measure(context, section, finished, due)
    elif context.settings.rollout_path.exists():
        _start(context, section, due)


def job_name(section: ScoreSettings) -> str:
    return f"score-{section.name}"


def due_at(section: ScoreSettings, now: datetime) -> datetime:
    """The newest time at which a run is due."""
    return now - (now - EPOCH) % section.every


def output_of(section: ScoreSettings, due: datetime) -> Path:
    return section.output / f"{section.name}-{due:%Y%m%dT%H%M%SZ}.{section.format}"


def _start(context: Context, section: ScoreSettings, due: datetime) -> None:
    settings, folder = context.settings, _folder(context, section)
    folder.mkdir(parents=True, exist_ok=True)
    section.output.mkdir(parents=True, exist_ok=True)
    source = section.input if "://" in section.input else str(settings.project / section.input)
    ours = [sys.executable, "-P", "-m", "loop", "--project", str(settings.project), "score"]
    more = ["--keep", section.keep, *(["--log"] if section.log else [])]
    context.executor.start_program(
        job_name(section),
        [*ours, source, str(output_of(section, due)), *more],
        folder=folder,
        limit=LIMIT.total_seconds(),
    )
    log.info("The batch run %s of %s has begun.", section.name, due)


def _ended(context: Context, section: ScoreSettings, exit_: Exit) -> None:
    result = "answered" if exit_.ok else "some_bad" if exit_.code == SOME_BAD else "failed"
    context.instruments.counter(
        "homeostat_score_runs_total", model=context.model, job=section.name, result=result
    ).inc()
    if result == "failed":
        how = exit_.describe(LIMIT.total_seconds())
        raise JobError(f"the batch run {section.name} {how}: {exit_.tail}", tail=exit_.tail)
    log.info("The batch run %s has ended: %s", section.name, exit_.tail.strip())


def _finished(section: ScoreSettings, due: datetime) -> Finished | None:
    try:
        path = Places(output_of(section, due), section.format).finished
        return from_json(path.read_bytes(), Finished)
    except FileNotFoundError:
        return None


def _measure(context: Context, section: ScoreSettings, found: Finished, due: datetime) -> None:
    """At every tick, so that it is right after a restart too."""
    answered = 1.0 if found.rows == 0 else (found.rows - found.bad) / found.rows
    for name, value in (
        ("homeostat_score_rows", found.rows),
        ("homeostat_score_answered_ratio", answered),
        ("homeostat_score_seconds", found.seconds),
        ("homeostat_last_score_timestamp_seconds", due.timestamp()),
    ):
        context.instruments.gauge(name, model=context.model, job=section.name).set(value)


def _folder(context: Context, section: ScoreSettings) -> Path:
    return context.settings.jobs_path / job_name(section)
