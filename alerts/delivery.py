"""Sends what waits in the outbox, and writes down how each attempt ended.

An attempt is settled after the answer, so a death in between sends the event again under the same
`webhook-id`: at least once. Endpoints are served side by side, each within a time of its own, and
one that fails is left alone for a while, so that none holds up the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import httpx

from alerts import retries, signing
from alerts.endpoints import Endpoint
from alerts.routing import receivers
from homeostat.metrics import Instruments
from homeostat.state import events
from homeostat.state.events import Delivery
from homeostat.state.store import State

log = logging.getLogger(__name__)

REMOVED = "the endpoint is no longer in the settings, or answered 410 Gone"


@dataclass(frozen=True, kw_only=True)
class _Answer:
    status: int | None = None
    retry_after: timedelta | None = None
    error: str = ""


class Deliverer:
    """One a process. `run_once` is called again and again, by one thread at a time."""

    def __init__(
        self,
        *,
        state: State,
        model: str,
        endpoints: Sequence[Endpoint],
        instruments: Instruments,
        clock: Callable[[], datetime],
        random: Callable[[], float],
        timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        self._state = state
        self._model = model
        self._endpoints = {endpoint.url: endpoint for endpoint in endpoints}
        self._instruments = instruments
        self._clock = clock
        self._random = random
        self._timeout = timeout.total_seconds()
        self._failures: dict[str, int] = {}  # in a row, by URL
        self._rests_until: dict[str, datetime] = {}

    def run_once(self, now: datetime) -> int:
        """Send what is due; the number of attempts made. Raises StateUnavailable.

        Takes at most twice the timeout, however slow the receivers are.
        """
        began = self._clock()
        due = self._take(now)
        if not due:
            return 0
        attempts = asyncio.run(self._send_all(due, now - began))
        with self._state.begin() as tx:
            self._show(events.outbox_level(tx), now)
        return attempts

    def _take(self, now: datetime) -> Mapping[str, list[Delivery]]:
        """Route new events, give up on endpoints that are no more, and see what is due."""
        with self._state.begin() as tx:
            for event in events.undispatched(tx):
                events.dispatch(tx, event, receivers(event.type, self._endpoints.values()), now)
            for stray in events.strays(tx, list(self._endpoints)):
                self._abandon(stray)
                events.settle(tx, stray, now, status="dead", error=REMOVED)
            due = {
                url: found
                for url in self._endpoints
                if self._rests_until.get(url, now) <= now
                and (found := events.due(tx, now, endpoint=url))
            }
            self._show(events.outbox_level(tx), now)
        return due

    async def _send_all(self, due: Mapping[str, list[Delivery]], offset: timedelta) -> int:
        async with httpx.AsyncHTTPTransport() as transport:
            counts = await asyncio.gather(
                *(self._send_to(transport, url, found, offset) for url, found in due.items())
            )
        return sum(counts)

    async def _send_to(
        self,
        transport: httpx.AsyncHTTPTransport,
        url: str,
        waiting: Sequence[Delivery],
        offset: timedelta,
    ) -> int:
        """One endpoint's deliveries in order, until one fails or the endpoint's time is up."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        for count, delivery in enumerate(waiting, start=1):
            answer = await self._attempt(transport, self._endpoints[url], delivery)
            now = self._clock() + offset
            await asyncio.to_thread(self._settle, delivery, answer, now)
            if self._failures.get(url) or url not in self._endpoints or loop.time() > deadline:
                return count
        return len(waiting)

    async def _attempt(
        self, transport: httpx.AsyncHTTPTransport, endpoint: Endpoint, delivery: Delivery
    ) -> _Answer:
        # The transport rather than a client: it follows no redirects, keeps no cookies, and does
        # not log addresses, whose paths may hold a token. The answer's content is never read.
        content = signing.body(delivery.event)
        now = self._clock()
        request = httpx.Request(
            "POST",
            endpoint.url,
            content=content,
            headers=signing.headers(endpoint, delivery.event.event_id, content, now),
        )
        try:
            async with asyncio.timeout(self._timeout):
                response = await transport.handle_async_request(request)
                await response.aclose()
        except TimeoutError:
            return _Answer(error=f"no answer within {self._timeout:g} s")
        except (httpx.HTTPError, OSError, ValueError) as error:
            return _Answer(error=f"{type(error).__name__}: {error}")
        return _Answer(
            status=response.status_code,
            retry_after=retries.parse_retry_after(response.headers.get("retry-after"), now),
            error=f"answered {response.status_code}",
        )

    def _settle(self, delivery: Delivery, answer: _Answer, now: datetime) -> None:
        outcome, next_at = self._outcome(delivery, answer, now)
        status = {"failed": "waiting"}.get(outcome, outcome)
        error = None if outcome == "delivered" else answer.error
        with self._state.begin() as tx:
            events.settle(tx, delivery, now, status=status, next_at=next_at, error=error)
        self._count(delivery, outcome)
        self._remember(delivery.endpoint, answer, now)
        self._tell(delivery, answer, outcome, next_at)

    def _outcome(
        self, delivery: Delivery, answer: _Answer, now: datetime
    ) -> tuple[str, datetime | None]:
        if answer.status is not None and retries.accepted(answer.status):
            return "delivered", None
        wait = retries.wait(
            delivery.attempts + 1, random=self._random(), retry_after=answer.retry_after
        )
        if answer.status == retries.GONE or wait is None:
            return "dead", None
        return "failed", now + wait

    def _remember(self, url: str, answer: _Answer, now: datetime) -> None:
        if answer.status is not None and retries.accepted(answer.status):
            self._failures.pop(url, None)
            return
        if answer.status == retries.GONE:
            # until the process is started again: what waits for it is given up with the next round
            del self._endpoints[url]
            return
        self._failures[url] = self._failures.get(url, 0) + 1
        pause = max(retries.rest(self._failures[url]), answer.retry_after or timedelta(0))
        self._rests_until[url] = now + pause

    def _tell(
        self, delivery: Delivery, answer: _Answer, outcome: str, next_at: datetime | None
    ) -> None:
        event, name = delivery.event, _name(delivery.endpoint)
        what = (event.type, event.event_id, name)
        if outcome == "delivered":
            log.info("Delivered %s (%s) to %s.", *what)
        elif outcome == "failed":
            log.warning(
                "Could not deliver %s (%s) to %s: %s; attempt %d, the next one at %s.",
                *what,
                answer.error,
                delivery.attempts + 1,
                next_at,
            )
        else:
            log.error(
                "Gave up delivering %s (%s) to %s after %d attempts: %s.",
                *what,
                delivery.attempts + 1,
                answer.error,
            )

    def _abandon(self, stray: Delivery) -> None:
        self._count(stray, "dead")
        event = stray.event
        name = _name(stray.endpoint)
        log.error(
            "Gave up delivering %s (%s) to %s: %s.", event.type, event.event_id, name, REMOVED
        )

    def _count(self, delivery: Delivery, outcome: str) -> None:
        self._instruments.counter(
            "homeostat_deliveries_total", model=delivery.event.model, outcome=outcome
        ).inc()

    def _show(self, level: events.OutboxLevel, now: datetime) -> None:
        age = (now - level.oldest).total_seconds() if level.oldest else 0.0
        gauge = self._instruments.gauge
        gauge("homeostat_outbox_waiting", model=self._model).set(level.waiting)
        gauge("homeostat_outbox_oldest_seconds", model=self._model).set(max(0.0, age))


def _name(url: str) -> str:
    return Endpoint(url=url, secrets=()).name
