"""What a backup holds. It is written last: a backup without it is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath

import msgspec

from homeostat.errors import IntegrityError
from homeostat.records import Task, from_json

NAME = "manifest.json"
FORMAT = 1

# Where things lie in a backup.
STATE = "state.jsonl"
HOME = "home"
JOURNAL = "journal"
KEYS = "keys.toml"  # where they lie outside of home
TABLES = ("predictions", "labels", "quarantine")
SETTINGS = "homeostat.toml"  # for people: a restore needs the project to be there already


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file."""

    size: int
    sha256: str
    mode: int = 0o644
    mtime_ns: int | None = None  # by which the next backup tells that it has not changed


@dataclass(frozen=True, kw_only=True)
class TableEntry:
    """One version of one table of the journal."""

    id: str
    version: int
    files: tuple[str, ...]  # below the table's folder, in the order in which they are written


@dataclass(frozen=True, kw_only=True)
class Manifest:
    format: int
    homeostat: str  # the version that made it
    model: str
    task: Task
    created_at: datetime
    home: str  # the folder it was taken from
    url: str  # of the journal
    files: Mapping[str, Entry]  # every file, by its path in the backup
    tables: Mapping[str, TableEntry] = field(default_factory=dict)
    aliases: Mapping[str, str] | None = None  # in MLflow; None: it was away, or is in home
    missing: tuple[str, ...] = ()  # what the state refers to and was not there to be copied


def parse(data: bytes) -> Manifest:
    """Raises IntegrityError."""
    try:
        manifest = from_json(data, Manifest)
    except msgspec.DecodeError as error:
        raise IntegrityError(f"the backup's {NAME} cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise IntegrityError(
            f"the backup has format {manifest.format}, this program reads {FORMAT}: "
            f"restore it with homeostat {manifest.homeostat}"
        )
    for path in manifest.files:
        _check(path)
    for name, table in manifest.tables.items():
        if name not in TABLES:
            raise IntegrityError(f'the backup\'s {NAME} names the table "{name}", which is none')
        for path in table.files:
            _check(path)
            if place_of(name, table.id, path) not in manifest.files:
                raise IntegrityError(
                    f'the backup\'s {NAME} names the file "{path}" of the table {name}, and no '
                    "digest of it"
                )
    return manifest


def place_of(table: str, id: str, path: str) -> str:
    """Where a file of a table lies in a backup: a table made anew may use its names again."""
    return f"{JOURNAL}/{table}/{id}/{path}"


def inside(root: Path, path: str) -> Path:
    """The place below a folder. Raises IntegrityError for one that is not."""
    found = root / _check(path)
    if not found.resolve().is_relative_to(root.resolve()):
        raise IntegrityError(f'the backup names the file "{path}", which would lie outside {root}')
    return found


def _check(path: str) -> str:
    """A backup is written by whoever could write to its place: none may name a file elsewhere."""
    pure = PurePosixPath(path)
    plain = pure.parts and pure.as_posix() == path and "\0" not in path
    if not plain or pure.is_absolute() or ".." in pure.parts:
        raise IntegrityError(f'the backup\'s {NAME} names the file "{path}"')
    return path
