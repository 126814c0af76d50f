"""One process that serves, alone or as a worker: its threads, its event loop, its status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from threading import Thread

import numpy as np
import uvloop

from homeostat.journal.writer import JournalWriter
from homeostat.settings import Settings, load
from serving.processes.last_moments import end_soon
from serving.processes.server import Place, serve
from serving.sharing.writer_id import writer_id
from serving.versions.journal import journal_writer, store_left_behind

OpenJournal = Callable[[Settings, Mapping[str, str]], JournalWriter]


def run(
    projects: Sequence[Settings],
    environ: MutableMapping[str, str],
    open_journal: OpenJournal | None = None,
    place: Place | None = None,
) -> None:
    """Until a signal; raises HomeostatError where the settings do not allow a start."""
    # torch.set_num_threads holds for the thread that calls it; a pool of spinning threads
    # beside each of the others would cost more than the model itself
    threads = max(settings.serving.threads for settings in projects)
    environ.setdefault("OMP_NUM_THREADS", str(threads))
    # what becomes infinite as a float32 is found, and its caller told: no warning needed
    np.seterr(over="ignore")

    def journal_of(settings: Settings) -> JournalWriter:
        if open_journal is not None:
            return open_journal(settings, environ)
        return journal_writer(settings, environ, slot=place.number if place else 0)

    def reread() -> list[Settings]:
        return [load(settings.project, environ) for settings in projects]

    if open_journal is None and (place is None or place.number == 0):
        count = 1 if place is None else place.count
        for settings in projects:
            writer_id(settings.home)
            Thread(target=store_left_behind, args=(settings, environ, count), daemon=True).start()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(projects, journal_of, reread, place))
        # a thread may hang in a load or in a model, and the runner would wait for it
        end_soon(0)
