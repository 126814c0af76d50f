"""A request to be forgotten, carried out in all that the platform keeps of a project."""

from __future__ import annotations

import shutil
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from homeostat.errors import JournalUnavailable
from homeostat.identifiers import milliseconds_of
from homeostat.journal.delta.files import Progress
from homeostat.journal.delta.tables import tables_of
from homeostat.journal.encoding.hash_key import read_hash_key
from homeostat.journal.encoding.privacy import keyed_hash
from homeostat.journal.encoding.recording import KEY
from homeostat.journal.forgetting import forget, traces, waiting_rows
from homeostat.journal.forgetting.forget import Erased, Found, Waiting, Wanted
from homeostat.journal.left_spools import commit_left
from homeostat.settings import Settings
from homeostat.state import checks, runs
from homeostat.state.store import State
from loop import made_of_rows, upkeep_lease
from loop.server_door import flush_journal
from loop.sweeping import files_with

PATIENCE = timedelta(minutes=1)  # beyond commit_every, for rows in the spool of a living writer


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was removed where, and what was not."""

    tables: Mapping[str, Erased]  # by name
    set_aside: int  # rows of segments that fit no table
    files: Mapping[str, int]  # training sets, holdouts, references: rows, by path below home
    reports: int
    job_folders: int
    versions: tuple[str, ...]  # trained on rows that are forgotten now
    remains: tuple[str, ...]  # sentences: what a person has to look at

    @property
    def rows(self) -> int:
        return sum(erased.rows for erased in self.tables.values())


def sentences(report: Report) -> list[str]:
    """For people: what went, and what nothing here can reach."""
    told = [
        f"{name}: {erased.rows:,} rows, and {erased.files} replaced files that held such rows"
        for name, erased in report.tables.items()
    ]
    told += [f"{path}: {rows:,} rows" for path, rows in report.files.items()]
    if report.set_aside:
        told.append(f"{report.set_aside:,} rows that had been set aside in the spool")
    if report.reports or report.job_folders:
        told.append(f"{report.reports} reports and {report.job_folders} folders of ended programs")
    told += [f"Look at this: {sentence}" for sentence in report.remains]
    if report.versions:
        told.append(
            f"Versions {', '.join(report.versions)} were trained on such rows: their weights, and "
            "what their programs logged to MLflow, are as they were. `homeostat retrain` makes one "
            "without them."
        )
    told.append(
        "Not reached: backups, exports, what your own programs keep, and what waits in the spool "
        "of a server on another machine: run this again once it has stored its rows."
    )
    return told


def wanted_of(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    ids: Collection[str] = (),
    keys: Collection[str] = (),
) -> Wanted:
    """Keys as they are stored. Raises SettingsError where the key of their hash is not to be had.

    Rows from before keys were hashed hold them as they are, so that both are looked for.
    """
    stored = set(keys)
    if keys and KEY in settings.journal.hash:
        secret = read_hash_key(settings, environ) or b""
        stored |= {text for key in keys if (text := keyed_hash(key, secret)) is not None}
    return Wanted(ids=frozenset(ids), keys=frozenset(stored))


def find(settings: Settings, wanted: Wanted, progress: Progress) -> Found:
    """Rows in the tables now; more may wait in a spool."""
    found = tables_of(settings.journal_path, settings.model.name, settings.model.task)
    return forget.find(found["predictions"], wanted, progress)


def forget_rows(
    settings: Settings,
    state: State,
    wanted: Wanted,
    *,
    clock: Callable[[], datetime],
    progress: Progress,
    waiting: Waiting | None = None,
) -> Report:
    """Forget rows everywhere. Killed anywhere, the same call again does the rest.

    Raises JournalUnavailable, also where rows wait in the spool of a server that cannot store them
    now; Conflict where an upkeep does not end.
    """
    model = settings.model
    _commit_spools(settings, wanted, progress)
    tables = tables_of(settings.journal_path, model.name, model.task)
    with upkeep_lease.held(
        state, model.name, clock, waiting=lambda: progress("waiting for the log's upkeep", 0, 1)
    ):
        found = forget.find(tables["predictions"], wanted, progress)
        everything = Wanted(ids=wanted.ids | found.ids, keys=wanted.keys)
        # Once more: labels have no key, so that only now it is known which of them wait.
        _commit_spools(settings, everything, progress)
        set_aside = waiting_rows.strip_rejected(settings.spool_path, model.name, everything)
        # In this order: what is found by its rows goes before they do.
        reports = _remove_reports(settings, state, [*found.times, *_times_in(wanted.ids)])
        traced = made_of_rows.holding(settings, everything, progress)
        run_ids = {path.parent.name for path in traced if path.is_relative_to(settings.runs_path)}
        folders = _remove_job_folders(settings, state, run_ids)
        stripped = made_of_rows.strip(settings, state, traced, everything)
        erased = forget.erase(tables, wanted, found, waiting=waiting, progress=progress)
    return Report(
        tables=erased,
        set_aside=set_aside,
        files=stripped.rows,
        reports=reports,
        job_folders=folders,
        versions=_versions_of(state, run_ids),
        remains=(*stripped.remains, *_remains(settings, state, everything, progress)),
    )


def _commit_spools(settings: Settings, wanted: Wanted, progress: Progress) -> None:
    """What waits for the tables is put there: by the server, or for one that is gone.

    A server that asks for a key does not do it at once, but in its own time: no longer than
    journal.commit_every.
    """
    model, spool = settings.model, settings.spool_path
    progress("committing what waits", 0, 1)
    flush_journal(settings)
    commit_left(settings.journal_path, spool, model.name, model.task)
    patience = (settings.journal.commit_every + PATIENCE).total_seconds()
    until = time.monotonic() + patience
    while left := waiting_rows.holding(spool, model.name, wanted):
        if time.monotonic() > until:
            raise JournalUnavailable(
                f"rows to be forgotten wait in {left[0].parent}, whose server has not stored them "
                f"in {patience:g} s; nothing was deleted yet: try again when its storage is back"
            )
        progress(f"waiting for a server to commit its rows, {patience:g} s at most", 0, 1)
        time.sleep(0.5)
    progress("committing what waits", 1, 1)


def _times_in(ids: Collection[str]) -> list[datetime]:
    """Of ids of ours whose rows the log has lost already."""
    known = [milliseconds_of(each) for each in ids]
    return [datetime.fromtimestamp(each / 1000, UTC) for each in known if each is not None]


def _remove_reports(settings: Settings, state: State, times: Sequence[datetime]) -> int:
    """Those whose window held such a row; and, if any did, those of which no window is known."""
    ordered = sorted(times)
    folders = settings.reports_path.iterdir() if settings.reports_path.is_dir() else ()
    removed = 0
    for folder in list(folders) if ordered else []:
        with state.begin() as tx:
            check = checks.get(tx, folder.name)
        if check is not None and check.verdict is not None:
            window = check.verdict.window
            at = bisect_left(ordered, window.start)
            if at == len(ordered) or ordered[at] >= window.end:
                continue
        shutil.rmtree(folder, ignore_errors=True)
        removed += 1
    return removed


def _remove_job_folders(settings: Settings, state: State, run_ids: Collection[str]) -> int:
    """What the programs of ended runs left: they may have copied what they were given."""
    with state.begin() as tx:
        active = runs.active(tx, settings.model.name)
    ended = [run_id for run_id in run_ids if active is None or run_id != active.run_id]
    removed = 0
    for folder in settings.jobs_path.iterdir() if settings.jobs_path.is_dir() else ():
        if any(folder.name.startswith(f"{run_id}-") for run_id in ended):
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed


def _versions_of(state: State, run_ids: Collection[str]) -> tuple[str, ...]:
    with state.begin() as tx:
        found = [runs.get(tx, run_id) for run_id in sorted(run_ids)]
    return tuple(run.candidate.version for run in found if run and run.candidate)


def _remains(
    settings: Settings,
    state: State,
    wanted: Wanted,
    progress: Progress,
) -> tuple[str, ...]:
    told = []
    with state.begin() as tx:
        active = runs.active(tx, settings.model.name)
        checking = checks.running(tx, settings.model.name)
    if active is not None:
        told.append(
            f"A retraining run is under way ({active.run_id}) and may have read such rows before: "
            "run this again when it has ended, or end it with `homeostat reject`."
        )
    if checking:
        told.append("A check is under way and may write a report of such rows: run this again.")
    told_of = set(traces.traced(settings.runs_path))
    untraced = [
        path
        for path in settings.runs_path.rglob("*.parquet")
        if path.name in ("train.parquet", "holdout.parquet") and path not in told_of
    ]
    told += [f"{path} does not say whose rows it holds." for path in untraced]
    waiting = waiting_rows.holding(settings.spool_path, settings.model.name, wanted)
    told += [f"{path} holds such rows that came meanwhile: run this again." for path in waiting]
    tables = tables_of(settings.journal_path, settings.model.name, settings.model.task)
    told += [
        f"The table {name} holds {rows:,} such rows that came meanwhile: run this again."
        for name, rows in forget.left(tables, wanted, progress).items()
    ]
    told += [
        f"{path} still holds what was asked for."
        for path in files_with(settings.home, [*wanted.ids, *wanted.keys], progress)
    ]
    return tuple(told)
