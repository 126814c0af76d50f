"""Reading a backup: the folder or the tar file it was written to, and whether it is unharmed."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from homeostat.errors import IntegrityError, NotReady
from homeostat.journal.delta.files import Progress
from loop.backup import manifest
from loop.backup.manifest import Manifest
from loop.backup.targets import TAR, newest

PIECE = 1 << 20  # bytes


class Source:
    """An opened backup."""

    def __init__(self, place: Path, open_: Callable[[str], IO[bytes]]) -> None:
        self.place = place
        self._open = open_
        with self.open(manifest.NAME) as data:
            self.manifest: Manifest = manifest.parse(data.read())

    def open(self, path: str) -> IO[bytes]:
        try:
            return self._open(path)
        except (KeyError, FileNotFoundError):
            raise IntegrityError(f"{self.place} is no whole backup: {path} is missing") from None

    def pieces(self, path: str) -> Iterator[bytes]:
        with self.open(path) as data:
            while piece := data.read(PIECE):
                yield piece

    def verify(self, progress: Progress) -> None:
        """Hash every file again. Raises IntegrityError."""
        total, done = sum(entry.size for entry in self.manifest.files.values()), 0
        for path, entry in self.manifest.files.items():
            digest = hashlib.sha256()
            for piece in self.pieces(path):
                digest.update(piece)
                done += len(piece)
                progress("verifying", done, total)
            if digest.hexdigest() != entry.sha256:
                raise IntegrityError(f"{self.place} is harmed: {path} is not what was backed up")


@contextmanager
def open_source(place: Path) -> Iterator[Source]:
    """A tar file, one backup's folder, or a folder of backups, of which the newest is taken."""
    if place.suffix == TAR:
        with ExitStack() as stack:
            try:
                archive = stack.enter_context(tarfile.open(place))
            except (tarfile.TarError, OSError) as error:
                raise IntegrityError(f"{place} cannot be read: {error}") from error
            yield Source(place, lambda path: _member(archive, path))
        return
    folder = place if (place / manifest.NAME).is_file() else newest(place)
    if folder is None:
        raise NotReady(f"there is no whole backup in {place}")
    yield Source(folder, lambda path: (folder / path).open("rb"))


def _member(archive: tarfile.TarFile, path: str) -> IO[bytes]:
    found = archive.extractfile(path)  # the last one of this name
    if found is None:
        raise KeyError(path)
    return found
