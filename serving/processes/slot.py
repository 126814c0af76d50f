"""One worker's place among several: the process in it now, and the line to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from homeostat.errors import ProgramError, Unavailable
from serving.counting.snapshot import Snapshot, as_snapshot
from serving.sharing.line import Line, Serve

log = logging.getLogger(__name__)

# A slot, how many there are, and a descriptor of the line -> the command, and the descriptors it
# inherits.
Start = Callable[[int, int, int], tuple[Sequence[str], Sequence[int]]]


class Slot:
    REFUSED = 78  # the status of a worker that the settings do not let start (EX_CONFIG)

    def __init__(self, number: int) -> None:
        self.number = number
        self.ready = False
        self.was_ready = False  # the process that is in it now, or was last
        self.problem = "it starts"
        self.failed = False  # it says that it cannot load what it is to serve, and tries again
        self.leaving = False  # it is being replaced, on purpose, until the next one is ready
        self.planned = False  # its process is about to end, on purpose
        self.dropped = False  # nobody comes after it
        self.deaths = 0
        self.line: Line | None = None
        self.latest = Snapshot()
        self._process: asyncio.subprocess.Process | None = None
        self._ended = asyncio.Event()
        self._heard: float | None = None  # when it last answered; never, while it starts
        self._closed = False

    async def live(self, start: Start, count: int, serve: Serve) -> int:
        """Start a worker and wait for its end; its status."""
        self.ready = self.was_ready = self.failed = False
        self.problem, self._ended = "it starts", asyncio.Event()
        ours, theirs = socket.socketpair()
        command, descriptors = start(self.number, count, theirs.fileno())
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(*descriptors, theirs.fileno()),
                start_new_session=True,  # a terminal's Ctrl-C is for the supervisor
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.line, self._heard = await Line.over(ours, serve), None
        if self._closed:  # meanwhile
            process.terminate()
        running = asyncio.create_task(self.line.run())
        try:
            return await process.wait()
        finally:
            self.ready, self.line, self._process = False, None, None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(running, 1.0)  # its last words
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # what it itself left behind
            self._ended.set()

    async def ask(self, what: str, told: Any, within: float) -> Any:
        if self.line is None:
            raise Unavailable(f"worker {self.number} is away")
        return await self.line.ask(what, told, within=within)

    async def look(self, within: float) -> None:
        """At what it has counted; where it does not answer, what is known stays."""
        with contextlib.suppress(Unavailable):
            self.keep(await self.ask("snapshot", None, within))
            self._heard = time.monotonic()

    def keep(self, told: Any) -> None:
        self.latest = as_snapshot(told)

    @property
    def silent(self) -> float:
        """For how many seconds it has not answered."""
        return 0.0 if self._heard is None else time.monotonic() - self._heard

    def end_if_silent(self, seconds: float) -> None:
        if self._process is not None and self.silent > seconds:
            log.error("worker %d has been silent for %.0f s; it is ended", self.number, self.silent)
            self._process.kill()

    async def leave(self, within: float) -> None:
        """Have it take no connections, answer what is open, store what waits, and end."""
        ended = self._ended
        try:
            await self.ask("leave", None, within)
        except Unavailable:
            self._signal(signal.SIGTERM)
        await self._end_within(ended, within)

    async def end(self, within: float) -> bool:
        """By SIGTERM, and where that does not help by force; whether it ended well."""
        self._closed = True
        process, ended = self._process, self._ended
        if process is None:
            return True
        early = not self.was_ready  # it may not listen to signals yet
        self._signal(signal.SIGTERM)
        await self._end_within(ended, within)
        well = process.returncode == 0 or (early and process.returncode == -signal.SIGTERM)
        if not well:
            log.error("worker %d ended with status %s", self.number, process.returncode)
        return well

    async def wait_until_ready(self, within: float, over: Callable[[], bool]) -> None:
        """Or until that is over. Where it says that it cannot, or takes longer, the wait goes on,
        but it counts as not ready. Raises ProgramError where its process ends before."""
        until, told = time.monotonic() + within, False
        while not (self.ready or over()):
            if self.problem_at_start():
                raise ProgramError(f"worker {self.number} ended before it was ready")
            if not told and (self.failed or time.monotonic() > until):
                told, self.leaving = True, False
                log.error(
                    "the reload waits for worker %d, which is not ready: %s; the others serve. "
                    "Another SIGHUP begins anew, with the settings as they are then",
                    self.number,
                    self.problem,
                )
            await asyncio.sleep(0.02)

    def problem_at_start(self) -> bool:
        return self._ended.is_set() and not self.was_ready and not self.planned

    async def _end_within(self, ended: asyncio.Event, seconds: float) -> None:
        try:
            await asyncio.wait_for(ended.wait(), seconds)
        except TimeoutError:
            log.error("worker %d did not end within %g s; it is killed", self.number, seconds)
            self._signal(signal.SIGKILL)
            await ended.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
