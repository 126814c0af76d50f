"""A backup back into an empty home: beside it first, and in its place when all is there."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from sqlalchemy.engine import make_url

from homeostat.errors import Conflict, JournalUnavailable, SettingsError
from homeostat.journal.delta import storage, table_copy
from homeostat.journal.delta.disk_sync import sync_folder
from homeostat.journal.delta.files import Progress
from homeostat.journal.delta.tables import tables_of
from homeostat.journal.left_spools import commit_left
from homeostat.journal.spooling import segments
from homeostat.journal.spooling.segments import REJECTED
from homeostat.registry.relocation import relocate
from homeostat.settings import Settings
from homeostat.state import checks, dump, rollouts, upkeeps
from homeostat.state.store import open_state
from loop.backup import contents, manifest, waiting_rows
from loop.backup.manifest import TableEntry
from loop.backup.quiet import LOCK, nothing_runs
from loop.backup.sources import Source
from retrain import publish

STORED_WITHIN = timedelta(minutes=5)
RIGHTS = 0o777  # a backup makes no program run as somebody else
STAMP = "%Y-%m-%dT%H-%M-%S.%fZ"


@dataclass(frozen=True, kw_only=True)
class Restored:
    champion: str | None  # the version that serves
    rows: int  # and labels that waited in a spool, and are in the tables now
    left: tuple[str, ...]  # tables that were there, as new as the backup's or newer
    aside: Path | None  # what was in home before
    replaced_state: Path | None  # of a database elsewhere, as it was before --force


def restore(
    settings: Settings, source: Source, *, force: bool, now: datetime, progress: Progress
) -> Restored:
    """Raises Conflict where something would be overwritten or runs, IntegrityError for a harmed
    backup, SettingsError for one of another project. Home is then as it was.

    What lies elsewhere is written before home is: tables in an object store, of which nothing is
    to be seen before they are whole, then the state. Cut off, the same call again does the rest.
    """
    made, home = source.manifest, settings.home
    if (made.model, made.task) != (settings.model.name, settings.model.task):
        raise SettingsError(
            f'the backup is of the {made.task} model "{made.model}"', key="model.name"
        )
    if not force and home.exists() and any(home.iterdir()):
        raise Conflict(f"{home} is not empty; --force puts what is in it aside")
    with nothing_runs(settings, now):
        source.verify(progress)
        beside = home.with_name(f".{home.name}.restoring")
        shutil.rmtree(beside, ignore_errors=True)  # of a restore that was cut off
        beside.mkdir(parents=True)
        work = _Restore(_in(beside, settings), source, progress, home=home, now=now)
        work.files()
        left = work.journal()
        rows = work.spool()
        champion = work.state(force=force)
        aside = _set_aside(home, now)
        os.sync()  # all of it, before it has its name
        beside.rename(home)
        sync_folder(home.parent)
    _keys_elsewhere(settings, source)
    return Restored(
        champion=champion, rows=rows, left=left, aside=aside, replaced_state=work.replaced
    )


class _Restore:
    """Into a home that is not the project's yet; what lies outside of it, where it belongs."""

    def __init__(
        self, settings: Settings, source: Source, progress: Progress, *, home: Path, now: datetime
    ) -> None:
        self.replaced: Path | None = None
        self._home = home  # where it is to be
        self._now = now
        self._settings = settings
        self._source = source
        self._progress = progress
        model = settings.model
        self._tables = tables_of(settings.journal_path, model.name, model.task)

    def files(self) -> None:
        prefix = f"{manifest.HOME}/"
        names = [name for name in self._source.manifest.files if name.startswith(prefix)]
        for done, name in enumerate(names, start=1):
            place = manifest.inside(self._settings.home, name.removeprefix(prefix))
            _write(self._source, name, place)
            self._progress("files", done, len(names))
        database = self._settings.home / contents.MLFLOW_DATABASE
        if database.exists():
            relocate(database, Path(self._source.manifest.home), self._home)

    def journal(self) -> tuple[str, ...]:
        """The tables that were there already."""
        left = []
        for name, wanted in self._source.manifest.tables.items():
            table = self._tables[name]
            there = table_copy.standing(table)
            if there is None:
                self._table(name, wanted)
            elif there[0] == wanted.id and there[1] >= wanted.version:
                left.append(name)  # in an object store, which a lost machine does not take along
            elif there[0] == wanted.id:
                raise Conflict(
                    f"{table.url} is older than the backup: it is a copy of an earlier one, or a "
                    "restore of it was cut off. Remove it, and restore again"
                )
            else:
                raise Conflict(
                    f"{table.url} holds another table than the backup: remove it, or name another "
                    "place in [journal] path"
                )
        return tuple(left)

    def spool(self) -> int:
        """Store what waited, under the numbers it had: nothing twice, whoever else stores it."""
        settings = self._settings
        folder = settings.spool_path / settings.model.name
        waited = list(folder.glob(f"*/{waiting_rows.SEGMENTS}"))
        rows = sum(_rows_in(path) for path in waited)
        if waited:
            try:
                commit_left(
                    settings.journal_path,
                    settings.spool_path,
                    settings.model.name,
                    settings.model.task,
                    within=STORED_WITHIN,
                )
            except JournalUnavailable:
                if any(path.exists() for path in waited):  # else what did not fit was set aside
                    raise
        for spool in folder.glob("*/"):
            if not any(spool.glob(f"{REJECTED}/*")):
                shutil.rmtree(spool)
        return rows

    def state(self, *, force: bool) -> str | None:
        """The version that serves from now on."""
        settings, model = self._settings, self._settings.model.name
        scratch = settings.home / ".restored"
        scratch.mkdir()
        with self._source.open(manifest.STATE) as data:
            unpacked = dump.unpack(data, scratch / "state.db")
        target = open_state(settings.state_url)
        try:
            with unpacked.begin() as tx:
                checks.forget_running(tx, model)  # their jobs are not here
                upkeeps.forget_running(tx, model)
                rollout = rollouts.current(tx, model)
            if force and settings.state.url is not None:
                self.replaced = self._keep_state()
            dump.put(unpacked, target, model, replace=force)
        finally:
            target.close()
            unpacked.close()
        shutil.rmtree(scratch)
        if rollout is None:
            return None
        publish.publish(settings.rollout_path, rollout)
        return rollout.champion.version

    def _keep_state(self) -> Path:
        """The only copy of what is about to be replaced, so that no other run takes it away."""
        stamp = f"{self._now.astimezone(UTC):{STAMP}}"
        for number in count(1):
            more = f"-{number}" if number > 1 else ""
            path = self._home.with_name(f"{self._home.name}.replaced-state-{stamp}{more}.jsonl")
            with suppress(FileExistsError), open(path, "xb", opener=_private) as kept:
                dump.dump(self._settings.state_url, self._settings.model.name, kept)
                kept.flush()
                os.fsync(kept.fileno())
                sync_folder(path.parent)
                return path
        raise AssertionError("numbers do not end")

    def _table(self, name: str, wanted: TableEntry) -> None:
        """Nothing of it is to be seen before it is whole: its first log file is the last one."""
        table, there = self._tables[name], self._begun(name, wanted)
        ordered = table_copy.as_written(wanted.files)
        for done, path in enumerate(ordered, start=1):
            if path not in there:
                pieces = self._source.pieces(manifest.place_of(name, wanted.id, path))
                table_copy.write(table, path, pieces)
            self._progress(name, done, len(ordered))

    def _begun(self, name: str, wanted: TableEntry) -> tuple[str, ...]:
        """Log files of a restore that was cut off. Raises Conflict where one is another's."""
        table, there = self._tables[name], table_copy.log_of(self._tables[name])
        for path in there:
            entry = self._source.manifest.files.get(manifest.place_of(name, wanted.id, path))
            if entry is None or _digest(table_copy.read(table, path)) != entry.sha256:
                raise Conflict(
                    f"{table.url} holds part of a table, which is not this backup's: remove it, "
                    "or name another place in [journal] path"
                )
        return there


def _in(beside: Path, settings: Settings) -> Settings:
    """The settings of the same project with its home elsewhere for now."""

    def moved(path: Path) -> Path:
        inside = path.is_relative_to(settings.home)
        return beside / path.relative_to(settings.home) if inside else path

    journal, state = settings.journal, settings.state
    if journal.path is not None and (folder := storage.local_folder(journal.path)) is not None:
        journal = replace(journal, path=str(moved(folder)))
    if state.url is not None and (url := make_url(state.url)).get_backend_name() == "sqlite":
        state = replace(state, url=f"sqlite:///{moved(Path(url.database or ''))}")
    return replace(settings, home=beside, journal=journal, state=state)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _rows_in(segment: Path) -> int:
    found = segments.read(segment)
    return 0 if found is None else int(found.num_rows)


def _set_aside(home: Path, now: datetime) -> Path | None:
    if not home.exists():
        return None
    if {entry.name for entry in home.iterdir()} <= {LOCK}:
        shutil.rmtree(home)
        return None
    aside = home.with_name(f"{home.name}.replaced-{now.astimezone(UTC):{STAMP}}")
    return home.rename(aside)


def _keys_elsewhere(settings: Settings, source: Source) -> None:
    """Keys that lie outside of home, unless there are some."""
    path = settings.keys_path
    if manifest.KEYS in source.manifest.files and not path.exists():
        _write(source, manifest.KEYS, path)


def _write(source: Source, name: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    with path.open("wb") as out:
        for piece in source.pieces(name):
            out.write(piece)
    path.chmod(source.manifest.files[name].mode & RIGHTS)
