"""Making a backup while everything runs.

The order makes the parts agree. What the state says was done before the state is read, so all that
is copied afterwards holds it: the files it names, MLflow's versions, and the rows its checks have
seen. And rows acknowledged before the beginning are in the tables when these are read, or their
spool was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import homeostat
from homeostat.errors import JournalUnavailable, RegistryRefused, RegistryUnavailable
from homeostat.journal.delta import table_copy
from homeostat.journal.delta.files import Progress
from homeostat.journal.delta.tables import TableRef, tables_of
from homeostat.settings import FILE_NAME, Settings
from homeostat.state import dump
from homeostat.state.store import open_state
from loop import upkeep_lease
from loop.backup import contents, manifest, targets
from loop.backup.manifest import Manifest, TableEntry
from loop.backup.quiet import has_state
from loop.backup.sources import PIECE
from loop.backup.targets import Target
from loop.backup.waiting_rows import settle
from loop.clock import utc_now

ATTEMPTS = 3  # where something was removed while it was copied


@dataclass(frozen=True, kw_only=True)
class Created:
    place: Path
    bytes: int
    files: int
    missing: tuple[str, ...]
    tables: dict[str, int]  # versions


@dataclass(frozen=True, kw_only=True)
class Wanted:
    journal: bool = True
    artifacts: bool = True  # MLflow's files of versions that do not serve


def create(
    settings: Settings,
    place: Path,
    wanted: Wanted,
    *,
    now: datetime,
    progress: Progress,
    clock: Callable[[], datetime] = utc_now,
) -> Created:
    """Raises Conflict (also where an upkeep of the log does not end), NotReady (no state yet),
    JournalUnavailable, StateUnavailable; then there is no backup."""
    with targets.open_target(place, now) as (target, final):
        copier = _Copier(settings, target, progress)
        settle(settings, copier.file, progress)
        with _alone(settings, clock, progress):
            missing = copier.state_and_files(wanted)
            found = copier.journal() if wanted.journal else {}
        targets.finish(
            target,
            Manifest(
                format=manifest.FORMAT,
                homeostat=homeostat.__version__,
                model=settings.model.name,
                task=settings.model.task,
                created_at=now,
                home=str(settings.home),
                url=settings.journal_path,
                files={},
                tables=found,
                aliases=_aliases(settings),
                missing=missing,
            ),
        )
    return Created(
        place=final,
        bytes=sum(entry.size for entry in target.entries.values()),
        files=len(target.entries),
        missing=missing,
        tables={name: table.version for name, table in found.items()},
    )


@contextmanager
def _alone(settings: Settings, clock: Callable[[], datetime], progress: Progress) -> Iterator[None]:
    """No rows are forgotten meanwhile: a training set's trace would be of other rows than it."""
    if not has_state(settings):  # whoever asks for it is told
        yield
        return
    with (
        closing(open_state(settings.state_url)) as state,
        upkeep_lease.held(
            state,
            settings.model.name,
            clock,
            waiting=lambda: progress("waiting for the log's upkeep", 0, 1),
        ),
    ):
        yield


class _Copier:
    def __init__(self, settings: Settings, target: Target, progress: Progress) -> None:
        self._settings = settings
        self._target = target
        self._progress = progress

    def state_and_files(self, wanted: Wanted) -> tuple[str, ...]:
        """What the state names and is nowhere to be found, in words."""
        for _ in range(ATTEMPTS):
            missing = self._state_and_files(wanted)
            if not missing:
                break  # else something was tidied away: a state of now does not name it
        return missing

    def _state_and_files(self, wanted: Wanted) -> tuple[str, ...]:
        settings, missing = self._settings, []
        with TemporaryDirectory(prefix="homeostat-backup-") as scratch:
            dumped = Path(scratch) / manifest.STATE
            with dumped.open("wb") as out:
                dump.dump(settings.state_url, settings.model.name, out)
            with dumped.open("rb") as data:
                state = dump.unpack(data, Path(scratch) / "state.db")
            self._target.add(manifest.STATE, _pieces(dumped))
            try:
                refs = contents.versions(state, settings.model.name)
                named = contents.references(settings, state)
            finally:
                state.close()
            if settings.registry.tracking_uri is None:
                self._mlflow(Path(scratch) / contents.MLFLOW_DATABASE)
        for path in self._all_files(wanted):
            self.file(path)
        for ref in refs:
            entry = contents.cached(settings, ref)
            if entry is None:
                missing.append(f"files of version {ref.version}")
            else:
                self._files(contents.files_below(entry))
        missing += [f"{path}" for path in named if self._name(path) not in self._target.entries]
        self._besides()
        return tuple(missing)

    def journal(self) -> dict[str, TableEntry]:
        settings = self._settings
        found = {}
        model = settings.model
        tables = tables_of(settings.journal_path, model.name, model.task)
        for name, table in tables.items():
            copied = self._table(name, table)
            if copied is not None:
                found[name] = copied
        return found

    def file(self, path: Path) -> None:
        """A file of home; one that is gone by now is passed over."""
        name = self._name(path)
        try:
            stat = path.stat()
            there = self._target.entries.get(name)  # of the attempt before
            if there and (there.size, there.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
                return
            if self._target.keep(name, stat.st_size, stat.st_mtime_ns):
                return
            self._target.add(
                name, _pieces(path), mode=stat.st_mode & 0o777, mtime_ns=stat.st_mtime_ns
            )
        except FileNotFoundError:
            self._target.drop(name)

    def _files(self, paths: Iterable[Path]) -> None:
        for path in paths:
            self.file(path)

    def _all_files(self, wanted: Wanted) -> Iterator[Path]:
        for folder in contents.folders(self._settings, artifacts=wanted.artifacts):
            paths = list(contents.files_below(folder))
            for done, path in enumerate(paths, start=1):
                yield path
                self._progress(folder.name, done, len(paths))

    def _mlflow(self, copy: Path) -> None:
        database = self._settings.home / contents.MLFLOW_DATABASE
        if database.exists():
            dump.copy_sqlite(database, copy)
            self._target.add(self._name(database), _pieces(copy))

    def _besides(self) -> None:
        keys = self._settings.keys_path
        if keys.exists():
            inside = keys.is_relative_to(self._settings.home)
            name = self._name(keys) if inside else manifest.KEYS
            self._target.add(name, _pieces(keys), mode=0o600)
        settings = self._settings.project / FILE_NAME
        if settings.exists():
            mode = settings.stat().st_mode & 0o777  # it may hold the password of a database
            self._target.add(manifest.SETTINGS, _pieces(settings), mode=mode)

    def _table(self, name: str, table: TableRef) -> TableEntry | None:
        copied: set[str] = set()
        for _ in range(ATTEMPTS):
            pinned = table_copy.pin(table)
            if pinned is None:
                return None
            try:
                self._copy_table(name, table, pinned, copied)
            except FileNotFoundError:
                continue  # deleted for good meanwhile: the table is another by now
            for path in copied - pinned.files.keys():
                self._target.drop(manifest.place_of(name, pinned.id, path))
            return TableEntry(id=pinned.id, version=pinned.version, files=tuple(pinned.files))
        raise JournalUnavailable(f"{table.url}: files vanish while they are copied; try again")

    def _copy_table(
        self, name: str, table: TableRef, pinned: table_copy.Pinned, copied: set[str]
    ) -> None:
        done, total = 0, sum(pinned.files.values())
        for path, size in pinned.files.items():
            place = manifest.place_of(name, pinned.id, path)
            if path not in copied and not self._target.keep(place, size, None):
                self._target.add(place, table_copy.read(table, path))
            copied.add(path)
            done += size
            self._progress(name, done, total)

    def _name(self, path: Path) -> str:
        return f"{manifest.HOME}/{path.relative_to(self._settings.home).as_posix()}"


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as data:
        while piece := data.read(PIECE):
            yield piece


def _aliases(settings: Settings) -> dict[str, str] | None:
    """For people: the rollout record says who serves. An embedded MLflow is there as a whole."""
    if settings.registry.tracking_uri is None:
        return None
    from homeostat.registry.mlflow_registry import Registry  # seconds

    try:
        return Registry(settings).aliases()
    except (RegistryUnavailable, RegistryRefused):
        return None
