"""Which models ask for keys: one that does, does so until a restart, whoever takes them away."""

from __future__ import annotations

from collections.abc import Sequence

from homeostat.auth import load_keys
from homeostat.key_watch import KeyWatch
from homeostat.settings import Settings
from homeostat.settings_of_serving import ServingSettings
from serving.processes.open_port import check_port


class Guarded:
    """As the supervisor sees it: a worker that dies takes what it knew with it, and the next one
    begins with what the files say by then."""

    def __init__(self) -> None:
        self._watches: list[KeyWatch] = []

    def take(self, projects: Sequence[Settings], *ways: ServingSettings) -> None:
        """The projects that workers serve from here on; `ways`: where they would listen. Raises
        SettingsError where others would be asked for no key, or for none any more, and nothing
        has changed."""
        before, watches = self.numbers(), []
        for number, settings in enumerate(projects):
            keys = load_keys(settings.keys_path)
            for serving in ways:
                check_port(serving, settings.model.name, keys, guarded=number in before)
            watches.append(KeyWatch(settings.keys_path, keys))
        self._watches = watches

    def look(self) -> None:
        """Keys may be made while the server runs."""
        for watch in self._watches:
            watch.look()

    def numbers(self) -> list[int]:
        """Of the projects whose callers need a key."""
        return [number for number, watch in enumerate(self._watches) if watch.keys]
