"""Parts done in this process, or in several: which one is worth it is seen by the first parts."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from homeostat.errors import JobError
from homeostat.scoring.job import PartDone
from homeostat.scoring.parts import Part
from homeostat.scoring.worker import Work, Worker

WORTH_SECONDS = 15.0  # of work left; to start processes and load a model in each takes some
_AHEAD = 2  # parts a process has waiting


def cores() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`processes`: None lets the first parts decide; with a GPU there is one. `loaded` is called
    once this process has the model; not where from the first part on there are several."""

    work: Work
    total: int  # sizes of all parts that are still to do
    processes: int | None
    loaded: Callable[[], None]


def results(parts: Iterator[Part], plan: Plan) -> Iterator[PartDone]:
    """As they are done, in no order. What a part raises ends it all."""
    if plan.processes is not None and plan.processes > 1:
        yield from _together(parts, plan.work, plan.processes)
        return
    worker = Worker(plan.work, threads=cores())
    plan.loaded()
    # with several cores and one process, torch has them all: what else there is to do has one
    may_spread = plan.processes is None and cores() > 1 and not worker.on_gpu
    try:
        started, done = time.monotonic(), 0
        for part in parts:
            result = worker.do(part)
            yield result
            done += result.size
            left = (time.monotonic() - started) * (plan.total - done) / max(1, done)
            if may_spread and left > WORTH_SECONDS:
                break
        else:
            return
    finally:
        worker.close()
    yield from _together(parts, plan.work, cores())


def _together(parts: Iterator[Part], work: Work, processes: int) -> Iterator[PartDone]:
    """At most so many parts are on their way that what waits for an earlier one stays little."""
    pool = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(work,)
    )
    running: set[Future[PartDone]] = set()
    try:
        for part in parts:
            running.add(pool.submit(_do, part))
            if len(running) >= processes * _AHEAD:
                yield from _ended(running)
        while running:
            yield from _ended(running)
    except BrokenProcessPool as error:
        raise JobError(
            "a process that scored ended of itself (out of memory?); the same command goes on, "
            "with --workers 1 in one process"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ended(running: set[Future[PartDone]]) -> list[PartDone]:
    ended, _ = wait(running, return_when=FIRST_COMPLETED)
    running -= ended
    return [each.result() for each in ended]


# A pool hands its processes nothing but a function's arguments: what each keeps lies here.
_mine: dict[str, Any] = {}


def _begin(work: Work) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _mine["worker"] = Worker(work, threads=1)


def _do(part: Part) -> PartDone:
    done: PartDone = _mine["worker"].do(part)
    return done


def _end_with_parent() -> None:
    """A pool's process does not notice by itself that nobody waits for it any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
