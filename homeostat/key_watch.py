"""Keys that change while a process runs: their file is read again once it was replaced."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from homeostat.auth import Keyring, Meter, load_keys
from homeostat.errors import SettingsError

log = logging.getLogger(__name__)

_State = tuple[int, int, int]


class KeyWatch:
    """Of one project. `look` costs a stat as long as nothing changes."""

    def __init__(
        self,
        path: Path,
        keys: Keyring,
        meter: Meter | None = None,
        replaced: Callable[[Keyring], None] = lambda keys: None,
    ) -> None:
        """`replaced` is told of the new ones."""
        self.keys = keys
        self._path = path
        self._meter = meter
        self._replaced = replaced
        self._seen: _State | None = None  # it may have been replaced since it was read

    def look(self) -> None:
        """A file that is gone, empty or wrong changes nothing: whoever has a key goes on, and the
        door is not opened to those who have none."""
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            keys = load_keys(self._path, self._meter)
        except SettingsError as error:
            log.error("the keys stay as they were: %s", error)
            return
        if self.keys and not keys:
            log.error("%s has no keys any more; the ones before hold until a restart", self._path)
            return
        if keys.keys != self.keys.keys:
            self.keys = keys
            self._replaced(keys)
            log.info("%s is read again: there are %d keys", self._path, len(keys.keys))

    def _state(self) -> _State | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
