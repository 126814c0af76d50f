"""Where a backup is written to: a folder of its own, or one tar file. Whole, or not there."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Protocol

from homeostat.errors import Conflict, HomeostatError
from homeostat.journal.delta.disk_sync import sync_folder
from homeostat.records import to_json
from loop.backup import manifest
from loop.backup.manifest import Entry, Manifest

TAR = ".tar"
STAMP = "%Y-%m-%dT%H-%M-%S.%fZ"
_PARTIAL = ".partial-"


class Target(Protocol):
    entries: dict[str, Entry]

    def add(
        self, path: str, pieces: Iterable[bytes], *, mode: int = 0o644, mtime_ns: int | None = None
    ) -> None:
        """Write a file of the backup."""

    def keep(self, path: str, size: int, mtime_ns: int | None) -> bool:
        """True where the last backup has the same file already, and so has this one now.

        `mtime_ns` is None for a file that never changes once it is there.
        """

    def drop(self, path: str) -> None:
        """It turned out not to belong to the backup."""


@contextmanager
def open_target(place: Path, now: datetime) -> Iterator[tuple[Target, Path]]:
    """The target, and where the backup will be once `finish` was called within."""
    if place.suffix == TAR:
        with _tar(place) as target:
            yield target, place
    else:
        with _folder(place, now) as (target, final):
            yield target, final


def finish(target: Target, made: Manifest) -> None:
    """Now it is a backup."""
    described = to_json(replace(made, files=dict(target.entries)))
    target.add(manifest.NAME, [described])


class FolderTarget:
    """A folder for each backup; files that did not change are links to those of the last one."""

    def __init__(self, folder: Path, last: Path | None) -> None:
        self._folder = folder
        self._last = last
        self._had = {} if last is None else _files_of(last)
        self.entries: dict[str, Entry] = {}

    def add(
        self, path: str, pieces: Iterable[bytes], *, mode: int = 0o644, mtime_ns: int | None = None
    ) -> None:
        file = self._folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)  # it may be a link to the last backup's
        with file.open("wb") as out:
            self.entries[path] = _poured(pieces, out, mode, mtime_ns)
        file.chmod(mode)

    def keep(self, path: str, size: int, mtime_ns: int | None) -> bool:
        had = self._had.get(path)
        if had is None or self._last is None or had.size != size or had.mtime_ns != mtime_ns:
            return False
        file = self._folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            file.unlink(missing_ok=True)
            os.link(self._last / path, file)
        except OSError:  # no links there, or the file is gone: then it is copied
            return False
        self.entries[path] = had
        return True

    def drop(self, path: str) -> None:
        self.entries.pop(path, None)
        (self._folder / path).unlink(missing_ok=True)


class TarTarget:
    """One file for all of it; its manifest is the last member."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self.entries: dict[str, Entry] = {}

    def add(
        self, path: str, pieces: Iterable[bytes], *, mode: int = 0o644, mtime_ns: int | None = None
    ) -> None:
        with TemporaryFile() as scratch:  # a member's size comes before it
            entry = _poured(pieces, scratch, mode, mtime_ns)
            scratch.seek(0)
            info = tarfile.TarInfo(path)
            info.size, info.mode = entry.size, mode
            self._archive.addfile(info, scratch)
        self.entries[path] = entry

    def keep(self, path: str, size: int, mtime_ns: int | None) -> bool:
        return False

    def drop(self, path: str) -> None:
        self.entries.pop(path, None)  # it stays in the archive, and nobody asks for it


@contextmanager
def _folder(place: Path, now: datetime) -> Iterator[tuple[Target, Path]]:
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(f"another backup is being made in {place}") from None
        for left in place.glob(f"{_PARTIAL}*"):  # of a backup that was cut off
            shutil.rmtree(left, ignore_errors=True)
        name = now.astimezone(UTC).strftime(STAMP)
        partial, final = place / f"{_PARTIAL}{name}", place / name
        partial.mkdir()
        try:
            yield FolderTarget(partial, newest(place)), final
            os.sync()  # all of it, before it has its name
            partial.rename(final)
            sync_folder(place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _tar(place: Path) -> Iterator[Target]:
    if place.exists():
        raise Conflict(f"{place} is there already: a backup replaces none")
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{place.name}.part")
    try:
        with partial.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                yield TarTarget(archive)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(place)
        sync_folder(place.parent)
    finally:
        partial.unlink(missing_ok=True)


def newest(place: Path) -> Path | None:
    """The newest whole backup in a folder of backups."""
    found = [each for each in place.glob("[0-9]*Z") if (each / manifest.NAME).is_file()]
    return max(found, default=None)


def _files_of(backup: Path) -> dict[str, Entry]:
    with contextlib.suppress(HomeostatError, OSError):
        return dict(manifest.parse((backup / manifest.NAME).read_bytes()).files)
    return {}


def _poured(pieces: Iterable[bytes], out: IO[bytes], mode: int, mtime_ns: int | None) -> Entry:
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        out.write(piece)
        size += len(piece)
    return Entry(size=size, sha256=digest.hexdigest(), mode=mode, mtime_ns=mtime_ns)
