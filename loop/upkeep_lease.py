"""Only one at a time keeps the log's tables: the loop, or a command by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from homeostat.errors import Conflict, Unavailable
from homeostat.state import controls
from homeostat.state.store import State
from loop.holder import holder_name, is_dead

TTL = timedelta(minutes=2)
LOOK_AGAIN = 1.0  # seconds


def take(state: State, model: str, now: datetime) -> bool:
    """Take or renew it for this process; False while somebody else has it."""
    name, holder = _name(model), holder_name()
    with state.begin() as tx:
        held = controls.lease(tx, name)
        if held is not None and is_dead(held.holder):
            controls.release_lease(tx, name, held.holder)
        return controls.take_lease(tx, name, holder, now, TTL) is not None


def release(state: State, model: str) -> None:
    with state.begin() as tx:
        controls.release_lease(tx, _name(model), holder_name())


@contextmanager
def held(
    state: State,
    model: str,
    clock: Callable[[], datetime],
    *,
    within: timedelta = timedelta(minutes=10),
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Hold it as long as the work inside takes. Raises Conflict where somebody else does not end;
    `waiting` is called at each look meanwhile."""
    until = clock() + within
    while not take(state, model, clock()):
        if clock() > until:
            raise Conflict("an upkeep of the log is under way and does not end; try again later")
        waiting()
        time.sleep(LOOK_AGAIN)
    done = threading.Event()
    keeper = threading.Thread(target=_renew, args=(state, model, clock, done), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        release(state, model)


def _renew(state: State, model: str, clock: Callable[[], datetime], done: threading.Event) -> None:
    while not done.wait(TTL.total_seconds() / 4):
        try:
            take(state, model, clock())
        except Unavailable:
            continue  # it lasts for some more tries


def _name(model: str) -> str:
    return f"upkeep:{model}"
