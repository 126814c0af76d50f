"""Requests that arrive together are answered together: one call of the model for all of them.

There is no timer unless the settings ask for one: what has arrived within one turn of the event
loop forms a batch, so that nobody waits on an idle server, and a slow model finds all that came
while it was busy. Where more waits than fits a batch, callers take turns. What finds no room
in the prediction log waits here, in its place in the queue, and is tried again from a thread. So is
everything for a while after the log's disk was slow, since the event loop may wait for no disk.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter

from homeostat.errors import HomeostatError, JournalUnavailable, ModelAway, ModelError
from serving.batching.contract import Answers, Result
from serving.batching.pace import SLOW, Pace
from serving.batching.taking import take, take_one_role, take_overdue
from serving.batching.waiting import Waiting, rows_in
from serving.requests.asked import Asked
from serving.requests.body import too_many_rows
from serving.requests.forms import Written
from serving.requests.later import Later
from serving.requests.parsing import Rows
from serving.requests.problem import Overdue, Overloaded
from serving.requests.shares import has_share
from serving.requests.turns import Turns
from serving.rules.health import Health
from serving.rules.routing import Role

PAUSE = 0.05  # seconds between two tries of what the journal does not take
CALM = 10.0  # seconds without a slow append, until one is made on the event loop again


class Batcher:
    """The queue before one loaded version, used from the event loop's thread alone.

    A queue belongs to a version, so an answer never mixes two. A batch of more than `loop_rows` is
    answered in a thread, and so is one that would wait for the model while another queue's batch is
    in it: `computing`. `patience` is how many seconds a request waits for a journal that has no
    room for its rows, or hangs, before it is told so; or, where it `may_drop` rows, before it is
    answered without being logged. `gather` is how many seconds the first request of a batch waits
    for others, on a model that is idle; `rested` is called when nobody waits any more.
    """

    def __init__(
        self,
        answer: Answers,
        pace: Pace,
        *,
        loop_rows: int,
        max_batch_rows: int,
        max_queued_rows: int,
        patience: float,
        may_drop: bool,
        loop: asyncio.AbstractEventLoop,
        health: Health,
        gather: float = 0.0,
        waited: Callable[[Sequence[float]], None] | None = None,
        rested: Callable[[], None] = lambda: None,
        computing: Callable[[], bool] = lambda: False,
    ) -> None:
        self._answer = answer
        self._pace = pace
        self._loop_rows = loop_rows
        self._max_batch_rows = max_batch_rows
        self._max_queued_rows = max_queued_rows
        self._patience = patience
        self._may_drop = may_drop
        self._loop = loop
        self._health = health
        self._gather = gather
        self._waited = waited  # told how long the requests of a batch were in the queue
        self._rested = rested
        self._computing = computing
        self._gathering: asyncio.TimerHandle | None = None
        self._special = 0  # of those that wait, how many say who asks
        self._odd = 0  # and how many are odd
        self._held: dict[str, int] = {}  # rows that wait, by caller, of those that say so
        self._turns: Turns | None = None  # while more waits than fits a batch
        self._aside = ThreadPoolExecutor(1, "unlogged")  # beside a thread that the disk holds up
        self._thread = ThreadPoolExecutor(1, "model")  # starts none before it is used
        self._pending: deque[Waiting] = deque()
        self._no_room = False  # at the last try
        self._slow_until = -math.inf  # appends are made in the thread till then
        self._watcher: asyncio.TimerHandle | None = None  # while the thread is at work
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.waiting_rows = 0

    def submit(self, rows: Rows, asked: Asked | None = None) -> Later[Written]:
        """The encoded answer, later. Raises Overloaded or TooLarge at once."""
        if rows.count > self._max_queued_rows:
            raise too_many_rows(rows.count, self._max_queued_rows)
        if self.waiting_rows + rows.count > self._max_queued_rows and not (
            asked and asked.caller and self._has_share(asked.caller, rows.count)
        ):
            held = self._no_room or self._pace.running() > SLOW
            what = "room in the prediction log" if held else "the model"
            raise Overloaded(f"{self.waiting_rows} rows wait for {what} already; try again")
        future: Later[Written] = Later()
        waiting = Waiting(rows, future, since=perf_counter())
        if asked is not None:
            waiting.asked = asked
            self._special += 1
            self._held[asked.caller] = self._held.get(asked.caller, 0) + rows.count
            if asked.until != math.inf or rows.role != Role.CHAMPION:
                waiting.odd = True
                self._odd += 1
        if self._no_room:
            waiting.until = self._loop.time() + self._patience
        self._pending.append(waiting)
        self.waiting_rows += rows.count
        if not self._busy:
            self._busy = True
            self._idle.clear()
            if self._gather:
                self._gathering = self._loop.call_later(self._gather, self._turn)
            else:
                self._loop.call_soon(self._turn)
        if self._gathering is not None and self.waiting_rows >= self._max_batch_rows:
            self._gathering.cancel()
            self._gathering = None
            self._loop.call_soon(self._turn)
        return future

    def _has_share(self, caller: str, count: int) -> bool:
        return has_share(self._held, self.waiting_rows, self._max_queued_rows, caller, count)

    async def drained(self) -> None:
        """Returns once nothing waits and nothing runs."""
        await self._idle.wait()

    async def close(self) -> None:
        await self.drained()
        self._thread.shutdown(wait=False)
        self._aside.shutdown(wait=False)

    def _turn(self) -> None:
        self._gathering = None
        if self._health.away:
            self._refuse_overdue()
            self._go_on(PAUSE)
            return
        if self._special:
            batch = self._take_specially()
        else:
            batch = take(self._pending, self._max_batch_rows)
        if not batch:  # all of them were overdue
            self._go_on()
            return
        if self._waited is not None and not self._no_room:
            now = perf_counter()
            self._waited([now - waiting.since for waiting in batch])
        requests = [waiting.rows for waiting in batch]
        large = self.waiting_rows > self._loop_rows and rows_in(batch) > self._loop_rows
        slow = self._no_room or self._loop.time() < self._slow_until
        if not (large or slow or self._computing()):
            self._finish(batch, self._answer(requests, 0.0))
            return
        wait = max(0.0, batch[0].until - self._loop.time()) if self._no_room else 0.0
        running = self._loop.run_in_executor(self._thread, self._answer, requests, wait)
        self._watcher = self._loop.call_later(PAUSE, self._watch)
        running.add_done_callback(lambda done: self._finish(batch, done.result()))

    def _watch(self) -> None:
        """Refuse what is overdue behind a model that is at work. Refuse what has waited long enough
        behind rows that the journal has not taken yet, or answer it without the journal. Those rows
        themselves have to wait: nobody knows whether they will be in it."""
        if self._odd:
            self._refuse_overdue()
        pending, now, held = self._pending, self._loop.time(), self._pace.running()
        if held > SLOW:
            for waiting in pending:
                waiting.until = min(waiting.until, now + self._patience)
            while pending and pending[0].until <= now:
                if self._may_drop:
                    taken = take(pending, self._max_batch_rows, until=now)
                    for role in {waiting.rows.role for waiting in taken}:
                        self._answer_aside([each for each in taken if each.rows.role == role])
                else:
                    self._settle(
                        pending.popleft(),
                        JournalUnavailable(
                            "the prediction log has not taken the rows before these for "
                            f"{held:.1f} s; its disk may hang"
                        ),
                    )
        self._watcher = self._loop.call_later(PAUSE, self._watch)

    def _answer_aside(self, batch: Sequence[Waiting]) -> None:
        def answered(done: asyncio.Future[list[Result]]) -> None:
            for waiting, result in zip(batch, done.result(), strict=True):
                self._settle(waiting, result)
            self._rest()

        unlogged = partial(self._answer, [waiting.rows for waiting in batch], logged=False)
        self._loop.run_in_executor(self._aside, unlogged).add_done_callback(answered)

    def _take_specially(self) -> list[Waiting]:
        """Without those whose time is over; callers in turn if not all fit; of one role."""
        pending, most = self._pending, self._max_batch_rows
        if not self._odd and self.waiting_rows <= most:
            self._turns = None
            return take(pending, most)
        self._refuse_overdue()
        if self.waiting_rows <= most:
            self._turns = None
            return take_one_role(pending, list(pending))
        self._turns = self._turns or Turns()
        return take_one_role(pending, self._turns.next(pending, most))

    def _refuse_overdue(self) -> None:
        for waiting in take_overdue(self._pending, self._loop.time()):
            self._settle(waiting, Overdue("the model was free"))

    def _finish(self, batch: Sequence[Waiting], results: Sequence[Result]) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        if self._pace.took > SLOW:
            self._slow_until = self._loop.time() + CALM
        refused: JournalUnavailable | None = None
        held: list[Waiting] = []
        unread: list[Waiting] = []
        answered = failed = 0
        for waiting, result in zip(batch, results, strict=True):
            if not isinstance(result, HomeostatError):
                answered += 1
                self._settle(waiting, result)
            elif self._patience and isinstance(result, JournalUnavailable):
                held.append(waiting)
                refused = result
            elif isinstance(result, ModelAway) and not waiting.unread:
                waiting.unread = True
                unread.append(waiting)
            else:
                failed += isinstance(result, ModelError)
                self._settle(waiting, result)
        if failed or not self._health.well:
            self._health.told(answered, failed)
        self._pending.extendleft(reversed(unread))
        if refused is not None:
            self._hold(held, refused)
            return
        self._no_room = False
        self._go_on(PAUSE if unread else 0.0)

    def _hold(self, held: Sequence[Waiting], refused: JournalUnavailable) -> None:
        """Let what the journal refused wait for the next try, unless its time is over by then."""
        if self._special:  # taken out of their order
            self._pending = deque(sorted((*held, *self._pending), key=lambda each: each.until))
            held = ()
        pending, now = self._pending, self._loop.time()
        pause = PAUSE if self._no_room else 0.0  # the first try of a thread comes at once
        pending.extendleft(reversed(held))
        if not self._no_room:
            self._no_room = True
            for waiting in pending:
                waiting.until = min(waiting.until, now + self._patience)
        while pending and pending[0].until <= now + pause:
            self._settle(pending.popleft(), refused)
        self._go_on(pause)

    def _settle(self, waiting: Waiting, result: Result) -> None:
        self.waiting_rows -= waiting.rows.count
        if waiting.asked is not None:
            self._special -= 1
            self._odd -= waiting.odd
            held = self._held.pop(waiting.asked.caller) - waiting.count
            if held:
                self._held[waiting.asked.caller] = held
        if isinstance(result, HomeostatError):
            waiting.future.set_exception(result)
        else:
            waiting.future.set_result(result)

    def _go_on(self, pause: float = 0.0) -> None:
        if not self._pending:
            self._busy = False
            self._rested()
            self._rest()
        elif pause:
            self._loop.call_later(pause, self._turn)
        else:
            self._loop.call_soon(self._turn)

    def _rest(self) -> None:
        if not (self._busy or self.waiting_rows):
            self._idle.set()
