"""Several workers share a port: they are started, watched, replaced, asked, and ended together.

Nothing heavy is imported here. A worker that dies is replaced; the server is ready only when all of
them are; what a dead one had counted still counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from homeostat.errors import HomeostatError, SettingsError
from serving.counting.snapshot import Family, Sample, Snapshot, lasting, merged
from serving.processes.hangup import watch_terminal
from serving.processes.slot import Slot, Start
from serving.sharing.seats import Seats

log = logging.getLogger(__name__)

LOOK = 2.0  # seconds between two looks at what each worker has counted, and whether it answers
ASKED = 4.0  # seconds for its answer
DEAF = 8.0  # seconds without one, until it counts as not ready
LATE = 60.0  # seconds from a planned end, until a successor that is not ready counts as missing
SILENT = 60.0  # seconds without one, until a worker that hangs is ended
FLUSH = 50.0
ENDING = 50.0  # seconds, beside serving.drain, for a worker's end; by itself it takes 45 at most
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a worker that died at its start comes again


@dataclass(frozen=True, kw_only=True)
class Crew:
    """What the settings say about the workers, at the start and at each reload."""

    count: int
    drain: float  # seconds


class Supervisor:
    def __init__(self, crew: Crew, start: Start, descriptor: int, look: Callable[[], None]) -> None:
        """`descriptor`: of the seats; `look` is called every two seconds."""
        self._start = start
        self._ending = ENDING + crew.drain
        self._seats = Seats(descriptor)
        self._look_also = look
        self._slots: list[Slot] = []
        self._keeping: dict[int, asyncio.Task[None]] = {}
        self._count = crew.count
        self._gone = Snapshot()  # what dead workers had counted
        self._stopping = asyncio.Event()
        self._again = asyncio.Event()  # a reload is asked for, and has not begun
        self._was_ready = False  # one of the workers, since the start
        self._failed: str | None = None  # why there is no use in going on
        self._began = time.monotonic()

    async def run(
        self, reload: Callable[[], Crew], announced: AbstractContextManager[None]
    ) -> bool:
        """Until a signal; whether all went well. `reload` reads the settings again; raises
        SettingsError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        gone = watch_terminal()
        loop.add_signal_handler(
            signal.SIGHUP, lambda: self._stopping.set() if gone() else self._again.set()
        )
        with announced:
            return await self._supervise(reload)

    async def _supervise(self, reload: Callable[[], Crew]) -> bool:
        for _ in range(self._count):
            self._add()
        others = [
            asyncio.create_task(self._reload_when_asked(reload)),
            asyncio.create_task(self._look()),
            asyncio.create_task(self._tell_when_ready()),
        ]
        await self._stopping.wait()
        for task in others:
            task.cancel()
        ended = await asyncio.gather(*(slot.end(self._ending) for slot in self._slots))
        await asyncio.gather(*self._keeping.values(), *others, return_exceptions=True)
        if self._failed is not None:
            log.error("%s", self._failed)
        return all(ended) and self._failed is None

    def not_ready(self) -> str:
        """Why the server is not ready; empty where it is."""
        if self._stopping.is_set():
            return "the server is going down"
        for slot in self._slots:
            if not (slot.ready or slot.leaving):
                return f"worker {slot.number} of {len(self._slots)} is not ready: {slot.problem}"
            if slot.silent > DEAF:
                return f"worker {slot.number} has not answered for {slot.silent:.0f} s"
        if not any(slot.ready for slot in self._slots):
            return "the only worker is being replaced"
        return ""

    # One worker after the other in a slot
    def _add(self) -> None:
        slot = Slot(len(self._slots))
        self._slots.append(slot)
        self._keeping[slot.number] = asyncio.create_task(self._keep(slot))

    async def _keep(self, slot: Slot) -> None:
        pause = 0.0
        while not self._stopping.is_set() and not slot.dropped:
            try:
                status = await slot.live(
                    self._start, self._count, functools.partial(self._serve, slot)
                )
            except OSError as error:
                status = -1
                log.error("worker %d cannot be started: %s", slot.number, error)
            self._seats.leave(slot.number)
            self._gone = merged([self._gone, lasting(slot.latest)])
            slot.latest = Snapshot()
            if self._stopping.is_set() or slot.dropped:
                return
            if slot.planned:
                slot.planned, pause = False, 0.0
                continue
            slot.leaving = False
            slot.deaths += 1
            pause = self._pause_after(slot, status, pause)
            slot.problem = "it ended and is being replaced"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    def _pause_after(self, slot: Slot, status: int, pause: float) -> float:
        """How long to wait before the next worker."""
        if status == Slot.REFUSED and not self._was_ready:
            self._failed = f"worker {slot.number} could not start; its lines above say why"
            self._stopping.set()
        longer = 0.0 if slot.was_ready else min(max(pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        log.error(
            "worker %d ended with status %d; another takes its place%s",
            slot.number,
            status,
            f" in {longer:g} s" if longer else "",
        )
        return longer

    # What workers ask
    async def _serve(self, slot: Slot, what: str, told: Any) -> Any:
        match what:
            case "state":
                slot.ready, slot.problem, slot.failed = told
                if slot.ready:
                    slot.was_ready = self._was_ready = True
                    slot.leaving = False
            case "ready":
                return self.not_ready()
            case "snapshot":
                await asyncio.gather(*(each.look(ASKED) for each in self._slots))
                living = [each.latest for each in self._slots]
                return merged([self._gone, *living, self._own()])
            case "flush":
                return await self._flush(told)
            case "last":
                slot.keep(told)
        return None

    async def _flush(self, model: str) -> dict[str, int]:
        """Raises Unavailable where one of the workers cannot store its rows; what is in a spool
        whose worker is away comes to the tables with the next one."""
        asked = [slot.ask("flush", model, FLUSH) for slot in self._slots if slot.line is not None]
        sums: dict[str, int] = {}
        for each in await asyncio.gather(*asked):
            for key, number in each.items():
                sums[key] = sums.get(key, 0) + number
        return sums

    def _own(self) -> Snapshot:
        def family(name: str, kind: str, *samples: Sample) -> Family:
            return Family(name, kind, "", samples)

        workers, ready = "homeostat_workers", "homeostat_workers_ready"
        deaths = "homeostat_worker_deaths_total"
        return Snapshot(
            (
                family(workers, "gauge", Sample(workers, (), len(self._slots))),
                family(ready, "gauge", Sample(ready, (), sum(each.ready for each in self._slots))),
                family(
                    deaths,
                    "counter",
                    *(
                        Sample(deaths, (("worker", str(each.number)),), each.deaths)
                        for each in self._slots
                    ),
                ),
            )
        )

    # What goes on all the time
    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            self._look_also()
            await asyncio.gather(*(slot.look(ASKED) for slot in self._slots))
            for slot in self._slots:
                slot.end_if_silent(SILENT)

    async def _tell_when_ready(self) -> None:
        while self.not_ready():
            await asyncio.sleep(0.02)
        log.info("all %d workers ready in %.1f s", len(self._slots), time.monotonic() - self._began)

    async def _reload_when_asked(self, reload: Callable[[], Crew]) -> None:
        while True:
            await self._again.wait()
            self._again.clear()
            crew = self._read_again(reload)
            if crew is None:
                continue
            self._count = crew.count
            # those that go may still drain by the settings they came with
            self._ending = max(self._ending, ENDING + crew.drain)
            log.info("reload: the workers are replaced, one after the other")
            try:
                await self._replace_all()
            except HomeostatError as error:
                log.error("the reload stops: %s", error)
            except Exception:  # the next SIGHUP is to be heard all the same
                log.exception("the reload stops")
            else:
                if not self._again.is_set():
                    log.info("reloaded")

    def _read_again(self, reload: Callable[[], Crew]) -> Crew | None:
        """None where what is in the files, whatever it is, does not allow a reload."""
        try:
            return reload()
        except SettingsError as error:
            log.error("nothing is reloaded: %s", error)
        except Exception:
            log.exception("nothing is reloaded")
        for slot in self._slots:  # of a reload that this one ended
            slot.leaving = False
        return None

    async def _replace_all(self) -> None:
        """Or until another reload is asked for: by settings that do not work, a worker is never
        ready. Raises HomeostatError."""
        # Those that are not ready go first: an earlier reload may have been left at one.
        for slot in sorted(self._slots[: self._count], key=lambda each: each.ready):
            if slot.line is not None:
                slot.planned = slot.leaving = True
                await slot.leave(self._ending)
            elif not slot.leaving:  # it died and is being replaced anyway
                continue
            await slot.wait_until_ready(LATE, self._again.is_set)
            if self._again.is_set():
                return
        while len(self._slots) > self._count:  # they serve until the rest does
            slot = self._slots[-1]
            slot.dropped = slot.leaving = True
            await slot.leave(self._ending)
            self._slots.pop()  # not before: whoever ends the server ends this one too
            await self._keeping.pop(slot.number)
        while len(self._slots) < self._count and not self._again.is_set():
            self._add()
            await self._slots[-1].wait_until_ready(LATE, self._again.is_set)


def supervise(
    crew: Crew,
    start: Start,
    descriptor: int,
    reload: Callable[[], Crew],
    look: Callable[[], None],
    announced: AbstractContextManager[None],
) -> bool:
    """Until a signal; whether all went well. See Supervisor. It is announced once it listens to
    signals: who reads that may send one."""

    async def run() -> bool:
        return await Supervisor(crew, start, descriptor, look).run(reload, announced)

    return asyncio.run(run())
