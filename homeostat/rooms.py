"""Our top-level names are common words: make sure that `import monitor` finds ours."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from homeostat.errors import SettingsError

ROOMS = ("serving", "monitor", "retrain", "alerts", "dashboards", "loop")


def verify_rooms() -> None:
    """Raise SettingsError when something else of the same name would be imported first."""
    house = Path(__file__).resolve().parent.parent
    for room in ROOMS:
        spec = find_spec(room)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != house / room:
            raise SettingsError(
                f'"import {room}" finds {found or "nothing"} instead of {house / room}: '
                "start with PYTHONSAFEPATH=1, and keep folders of that name off PYTHONPATH"
            )
