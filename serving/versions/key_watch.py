"""Keys that change while the server runs: their file is read again once it was replaced."""

from __future__ import annotations

import logging

from homeostat.auth import Meter, load_keys
from homeostat.errors import SettingsError
from serving.versions.served_model import ServedModel

log = logging.getLogger(__name__)

_State = tuple[int, int, int]


class KeyWatch:
    """Of one model. `look` costs a stat as long as nothing changes."""

    def __init__(self, model: ServedModel, meter: Meter) -> None:
        self._model = model
        self._meter = meter
        self._path = model.settings.keys_path
        self._seen = self._state()

    def look(self) -> None:
        """A file that is gone, empty or wrong changes nothing: whoever has a key goes on, and the
        door is not opened to those who have none."""
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            keys = load_keys(self._path, self._meter)
        except (SettingsError, OSError) as error:
            log.error("the keys stay as they were: %s", error)
            return
        if self._model.keys and not keys:
            log.error("%s has no keys any more; the ones before hold until a restart", self._path)
            return
        if keys.keys != self._model.keys.keys:
            self._model.keys = keys
            log.info("%s: the keys are read again; there are %d", self._model.name, len(keys.keys))

    def _state(self) -> _State | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
