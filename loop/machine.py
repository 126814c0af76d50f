"""One tick of the loop: look at the state and at what has ended, and start what is due."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from homeostat.errors import HomeostatError, Unavailable
from homeostat.records import Rollout, VersionRef
from homeostat.state import controls, runs
from loop import (
    batch_runs,
    checking,
    deciding,
    log_fit,
    measuring,
    releasing,
    retraining,
    tidying,
    upkeeping,
)
from loop.context import Context
from loop.holder import holder_name, is_dead

log = logging.getLogger(__name__)

LEASE_TTL = timedelta(seconds=30)
REST_AWAY = timedelta(seconds=2)
REST_WRONG = timedelta(seconds=30)
ALIASES_EVERY = timedelta(seconds=10)


class Machine:
    """The loop of one model. Only the holder of the lease acts; the others stand by."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.holder = holder_name()
        self._mirrored_at: datetime | None = None
        self._tidied_at: datetime | None = None
        self._rests_until: dict[str, datetime] = {}
        self._fit_asked: VersionRef | None = None
        self._held_until: datetime | None = None
        self._standing_by = False

    @property
    def lease_name(self) -> str:
        return f"loop:{self.context.model}"

    def tick(self) -> None:
        """Never raises for what is away: says what it waits for; the next tick tries again."""
        context, now = self.context, self.context.clock()
        try:
            if context.reach("state", lambda: self._holds_lease(now)):
                self._step(now)
        except Unavailable as error:
            log.warning("Waiting: %s", error)

    def _holds_lease(self, now: datetime) -> bool:
        if self._held_until is not None and now < self._held_until - LEASE_TTL / 2:
            return True  # nobody else can take it yet: no write to the database at every tick
        with self.context.state.begin() as tx:
            held = controls.lease(tx, self.lease_name)
            if held is not None and is_dead(held.holder):
                controls.release_lease(tx, self.lease_name, held.holder)
            lease = controls.take_lease(tx, self.lease_name, self.holder, now, LEASE_TTL)
        self._held_until = lease.expires_at if lease else None
        if (lease is None) != self._standing_by:
            self._standing_by = lease is None
            log.info("Another loop holds the lease; standing by." if lease is None else "Leading.")
        if lease is None:
            self.context.executor.close()  # the other one does this work now
        return lease is not None

    @property
    def leads(self) -> bool:
        return self._held_until is not None and self.context.clock() < self._held_until

    def _step(self, now: datetime) -> None:
        context = self.context
        rollout = releasing.publish_rollout(context)
        self._try("log", lambda: self._ask_log(rollout, now))
        self._try("mirror", lambda: self._mirror(now))
        self._try("measure", lambda: releasing.measure_adopted(context, now))
        checking.collect(context, now)
        deciding.decide_checks(context, now)
        deciding.decide_first(context, now)
        self._try("check", lambda: checking.start_due(context, now))
        retraining.advance(context, now)
        newest = releasing.publish_rollout(context)
        if newest is not None and newest != rollout:
            self._mirrored_at = None
        self._try("upkeep", lambda: upkeeping.advance(context, now))
        for section in context.settings.score:
            self._try(f"score {section.name}", partial(batch_runs.advance, context, section, now))
        self._tidy(now)
        with context.state.begin() as tx:
            active = runs.active(tx, context.model) is not None
            paused = controls.control(tx, context.model).paused
        measuring.standing(context, newest, active, paused)

    def _ask_log(self, rollout: Rollout | None, now: datetime) -> None:
        """Of each version that serves once, so of the first one under the settings of now."""
        if rollout is None or rollout.champion == self._fit_asked:
            return
        if log_fit.tell_misfit(self.context, rollout.champion, now):
            self._fit_asked = rollout.champion

    def _mirror(self, now: datetime) -> None:
        if self._mirrored_at is not None and now - self._mirrored_at < ALIASES_EVERY:
            return
        self._mirrored_at = now
        releasing.mirror_aliases(self.context, now)

    def _tidy(self, now: datetime) -> None:
        if self._tidied_at is None or now - self._tidied_at >= tidying.EVERY:
            self._tidied_at = now
            tidying.tidy(self.context)

    def _try(self, name: str, step: Callable[[], None]) -> None:
        """One step's trouble does not stop the others, and is not repeated at every tick."""
        now = self.context.clock()
        if now < self._rests_until.get(name, now):
            return
        try:
            step()
        except Unavailable as error:
            log.warning("Waiting: %s", error)
            self._rests_until[name] = now + REST_AWAY
        except HomeostatError as error:
            log.error("%s", error)
            self._rests_until[name] = now + REST_WRONG

    def close(self) -> None:
        """Let another loop take over at once."""
        try:
            with self.context.state.begin() as tx:
                controls.release_lease(tx, self.lease_name, self.holder)
        except Unavailable as error:
            log.warning("The lease runs out by itself: %s", error)
        self.context.executor.close()
