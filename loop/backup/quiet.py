"""That nothing of a project runs, and that nothing starts meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from sqlalchemy.engine import make_url

from homeostat.errors import Conflict
from homeostat.settings import Settings
from homeostat.state import controls
from homeostat.state.store import open_state
from loop.backup import waiting_rows
from loop.holder import is_dead
from loop.household import addresses, only_one

LOCK = "up.lock"


@contextmanager
def nothing_runs(settings: Settings, now: datetime) -> Iterator[None]:
    """Raises Conflict naming what runs."""
    with ExitStack() as stack:
        if settings.home.exists():
            stack.enter_context(only_one(settings))  # `up` holds it, and waits for it
            server = addresses(settings).server
            if server is not None or waiting_rows.owned(settings):
                where = server or "it ends just now"
                raise Conflict(f"the server of this project runs ({where}): end it first")
        if has_state(settings):
            _refuse_loop(settings, now)
        yield


def _refuse_loop(settings: Settings, now: datetime) -> None:
    state = open_state(settings.state_url)
    try:
        with state.begin() as tx:
            lease = controls.lease(tx, f"loop:{settings.model.name}")
    finally:
        state.close()
    if lease is not None and lease.expires_at > now and not is_dead(lease.holder):
        raise Conflict(f"the loop of this project runs ({lease.holder}): end it first")


def has_state(settings: Settings) -> bool:
    """Asking must not make one."""
    url = make_url(settings.state_url)
    return url.get_backend_name() != "sqlite" or Path(url.database or "").exists()
