"""Requests that arrive together are answered together: one call of the model for all of them.

There is no timer: what has arrived within one turn of the event loop forms a batch, so that nobody
waits on an idle server, and a slow model finds all that came while it was busy.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from homeostat.errors import HomeostatError
from serving.answering import Result
from serving.parsing import Rows
from serving.problem import Overloaded, TooLarge

Waiting = tuple[Rows, asyncio.Future[bytes]]


class Batcher:
    """The queue before one loaded version, used from the event loop's thread alone.

    A queue belongs to a version, so an answer never mixes two.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Rows]], list[Result]],
        *,
        blocking: bool,
        max_batch_rows: int,
        max_queued_rows: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._answer = answer
        self._max_batch_rows = max_batch_rows
        self._max_queued_rows = max_queued_rows
        self._loop = loop
        self._thread = ThreadPoolExecutor(1, "model") if blocking else None
        self._pending: deque[Waiting] = deque()
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.waiting_rows = 0

    def submit(self, rows: Rows) -> asyncio.Future[bytes]:
        """The encoded answer, later. Raises Overloaded or TooLarge at once."""
        if rows.count > self._max_queued_rows:
            raise TooLarge(
                f"{rows.count} rows in one request; at most {self._max_queued_rows} "
                "(serving.max_queued_rows)"
            )
        if self.waiting_rows + rows.count > self._max_queued_rows:
            raise Overloaded(f"{self.waiting_rows} rows wait for the model already; try again")
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._pending.append((rows, future))
        self.waiting_rows += rows.count
        if not self._busy:
            self._busy = True
            self._idle.clear()
            self._loop.call_soon(self._turn)
        return future

    async def drained(self) -> None:
        """Returns once nothing waits and nothing runs."""
        await self._idle.wait()

    async def close(self) -> None:
        await self.drained()
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    def _turn(self) -> None:
        batch = self._take()
        requests = [rows for rows, _ in batch]
        if self._thread is None:
            self._finish(batch, self._answer(requests))
            return
        running = self._loop.run_in_executor(self._thread, self._answer, requests)
        running.add_done_callback(lambda done: self._finish(batch, done.result()))

    def _take(self) -> list[Waiting]:
        """Whole requests, as many as fit; one that fits nowhere goes alone."""
        pending, count = self._pending, 0
        batch: list[Waiting] = []
        while pending:
            rows = pending[0][0].count
            if batch and count + rows > self._max_batch_rows:
                break
            count += rows
            batch.append(pending.popleft())
        return batch

    def _finish(self, batch: Sequence[Waiting], results: Sequence[Result]) -> None:
        for (rows, future), result in zip(batch, results, strict=True):
            self.waiting_rows -= rows.count
            if future.done():  # its caller is gone
                continue
            if isinstance(result, HomeostatError):
                future.set_exception(result)
            else:
                future.set_result(result)
        if self._pending:
            self._loop.call_soon(self._turn)
        else:
            self._busy = False
            self._idle.set()
