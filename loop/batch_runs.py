"""Batch scoring on a schedule: `homeostat score` as a child of the loop.

A run is named after the time it was due, and `homeostat score` knows by what lies beside its
output whether it is finished: so nothing has to be written down, a loop that was killed goes on
with the run it was at, and no run is made twice. What was due while no loop ran is not made up for.
"""

from __future__ import annotations

import logging
import re
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from homeostat import events as types
from homeostat.errors import JobError
from homeostat.executor import Exit
from homeostat.jobs import write_atomically
from homeostat.records import from_json, to_json
from homeostat.scoring.job import Places
from homeostat.scoring.ledger import Finished
from homeostat.settings_of_the_loop import ScoreSettings
from homeostat.state import events
from loop.context import Context

log = logging.getLogger(__name__)

LIMIT = timedelta(hours=24)
SOME_BAD = 3  # exit status of `homeostat score`
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BEGUN = "begun.json"
KEPT_STATES = 100  # newest runs of a job into one table whose bad rows stay to be looked at
TAIL = 2000  # characters


@dataclass(frozen=True, kw_only=True)
class Begun:
    """Which run a job's folder was last used for."""

    due: datetime


def advance(context: Context, section: ScoreSettings, now: datetime) -> None:
    """Start what is due, look whether it has ended, or neither. Raises JobError for a run that
    failed: the next call tries it again, or the one that is due by then."""
    name, executor = job_name(section), context.executor
    due = due_at(section, now)
    if executor.knows(name):
        exit_ = executor.poll(name)
        if exit_ is not None:
            _ended(context, section, exit_, now)
        return
    finished = _finished(section, due)
    if finished is not None:
        _measure(context, section, finished, due)
    elif context.settings.rollout_path.exists():
        try:
            _start(context, section, due)
        except OSError as error:
            raise _failed(context, section, due, now, f"cannot begin: {error}") from error


def job_name(section: ScoreSettings) -> str:
    return f"score-{section.name}"


def due_at(section: ScoreSettings, now: datetime) -> datetime:
    """The newest time at which a run is due."""
    return now - (now - EPOCH) % section.every


def places_of(section: ScoreSettings, due: datetime) -> Places:
    """A file of its own for each run, or one table that they all append to."""
    name = f"{section.name}-{due:%Y%m%dT%H%M%SZ}"
    if section.format == "delta":
        return Places(section.output, section.format, name)
    return Places(section.output / f"{name}.{section.format}", section.format)


def tidy(section: ScoreSettings, now: datetime) -> int:
    """Remove what old runs into one table left beside it; how many were removed. A run that is
    over is never made again, whether or not its state is known."""
    current = places_of(section, due_at(section, now))
    if not current.name:
        return 0
    ours = re.compile(re.escape(section.name) + r"-\d{8}T\d{6}Z")
    found = sorted(path for path in current.state.parent.glob("*") if ours.fullmatch(path.name))
    old = [path for path in found[:-KEPT_STATES] if path != current.state]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)
    return len(old)


def _start(context: Context, section: ScoreSettings, due: datetime) -> None:
    settings, folder = context.settings, _folder(context, section)
    shutil.rmtree(folder, ignore_errors=True)  # what the run before it printed
    folder.mkdir(parents=True, exist_ok=True)
    places = places_of(section, due)
    places.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / BEGUN, to_json(Begun(due=due)))
    source = section.input if "://" in section.input else str(settings.project / section.input)
    ours = [sys.executable, "-P", "-m", "loop", "--project", str(settings.project), "score"]
    more = ["--keep", section.keep, *(["--log"] if section.log else [])]
    if places.name:
        more += ["--format", places.format, "--run", places.name]
    context.executor.start_program(
        job_name(section),
        [*ours, source, str(places.output), *more],
        folder=folder,
        limit=LIMIT.total_seconds(),
    )
    log.info("The batch run %s of %s has begun.", section.name, due)


def _ended(context: Context, section: ScoreSettings, exit_: Exit, now: datetime) -> None:
    if not exit_.ok and exit_.code != SOME_BAD:
        due = from_json((_folder(context, section) / BEGUN).read_bytes(), Begun).due
        how = exit_.describe(LIMIT.total_seconds())
        raise _failed(context, section, due, now, how, exit_.tail)
    _count(context, section, "answered" if exit_.ok else "some_bad")
    log.info("The batch run %s has ended: %s", section.name, exit_.tail.strip())


def _count(context: Context, section: ScoreSettings, result: str) -> None:
    context.instruments.counter(
        "homeostat_score_runs_total", model=context.model, job=section.name, result=result
    ).inc()


def _failed(
    context: Context, section: ScoreSettings, due: datetime, now: datetime, how: str, tail: str = ""
) -> JobError:
    """Told once for each run, however often it is tried."""
    _count(context, section, "failed")
    run = {"job": section.name, "due": due.isoformat()}
    with context.state.begin() as tx:
        known = events.newest_of(tx, context.model, types.SCORE_FAILED)
        if not any(run.items() <= event.data.items() for event in known):
            said = {"error": f"the batch run {section.name} {how}", "tail": tail[-TAIL:]}
            events.record(tx, types.SCORE_FAILED, context.model, now, **run, **said)
    return JobError(f"the batch run {section.name} {how}: {tail}", tail=tail)


def _finished(section: ScoreSettings, due: datetime) -> Finished | None:
    try:
        return from_json(places_of(section, due).finished.read_bytes(), Finished)
    except (FileNotFoundError, NotADirectoryError):
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
