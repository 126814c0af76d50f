"""One tick of the loop: look at the state and at what has ended, and start what is due."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from homeostat.errors import HomeostatError, Unavailable
from homeostat.state import controls, runs
from loop import checking, deciding, measuring, releasing, retraining, tidying
from loop.context import Context
from loop.holder import holder_name, is_dead

log = logging.getLogger(__name__)

LEASE_TTL = timedelta(seconds=30)
ALIASES_EVERY = timedelta(seconds=10)


class Machine:
    """The loop of one model. Only the holder of the lease acts; the others stand by."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.holder = holder_name()
        self._mirrored_at: datetime | None = None
        self._tidied_at: datetime | None = None
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
        return lease is not None

    def _step(self, now: datetime) -> None:
        context = self.context
        rollout = releasing.publish_rollout(context)
        self._try(lambda: self._mirror(now))
        self._try(lambda: releasing.measure_adopted(context, now))
        checking.collect(context, now)
        deciding.decide_checks(context, now)
        deciding.decide_first(context, now)
        self._try(lambda: checking.start_due(context, now))
        retraining.advance(context, now)
        newest = releasing.publish_rollout(context)
        if newest is not None and newest != rollout:
            self._mirrored_at = None
        self._tidy(now)
        with context.state.begin() as tx:
            active = runs.active(tx, context.model) is not None
            paused = controls.control(tx, context.model).paused
        measuring.standing(context, newest, active, paused)

    def _mirror(self, now: datetime) -> None:
        if self._mirrored_at is not None and now - self._mirrored_at < ALIASES_EVERY:
            return
        self._mirrored_at = now
        releasing.mirror_aliases(self.context, now)

    def _tidy(self, now: datetime) -> None:
        if self._tidied_at is None or now - self._tidied_at >= tidying.EVERY:
            self._tidied_at = now
            tidying.tidy(self.context)

    def _try(self, step: Callable[[], None]) -> None:
        """One step's trouble does not stop the others."""
        try:
            step()
        except Unavailable as error:
            log.warning("Waiting: %s", error)
        except HomeostatError as error:
            log.error("%s", error)

    def close(self) -> None:
        """Let another loop take over at once."""
        try:
            with self.context.state.begin() as tx:
                controls.release_lease(tx, self.lease_name, self.holder)
        except Unavailable as error:
            log.warning("The lease runs out by itself: %s", error)
        self.context.executor.close()
