"""The rollout record as the server knows it: a small file, read again once it was replaced."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import msgspec

from homeostat.records import Rollout, from_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Seen:
    """Enough of a file's state to know that it was replaced."""

    inode: int
    mtime_ns: int
    size: int


class Record:
    """Of one model. While the file says nothing sensible, what it said last holds."""

    def __init__(self, path: Path, model: str) -> None:
        self.says: Rollout | None = None
        self._path, self._model = path, model
        self._seen: _Seen | None = None

    def look(self) -> bool:
        """Read the file if it was replaced; whether it now says something else."""
        path = self._path
        try:
            stat = path.stat()
            seen = _Seen(stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen == self._seen:
                return False
            rollout = from_json(path.read_bytes(), Rollout)
        except FileNotFoundError:
            return False
        except (OSError, msgspec.DecodeError) as error:
            self._seen = None
            log.warning("%s cannot be read (%s); the last known record holds", path, error)
            return False
        self._seen = seen
        if rollout.model != self._model:
            log.warning("%s is about %s, not %s", path, rollout.model, self._model)
            return False
        changed, self.says = rollout != self.says, rollout
        return changed
