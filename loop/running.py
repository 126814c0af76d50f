"""The loop's process: the machine ticked by a scheduler, webhooks sent, the console served."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler
from prometheus_client import CollectorRegistry

from homeostat.errors import Unavailable
from homeostat.executor import LocalExecutor
from homeostat.journal.reader import Journal
from homeostat.metrics import Instruments
from homeostat.settings import Settings
from homeostat.state.store import open_state
from loop.clock import utc_now
from loop.context import Context
from loop.machine import Machine

log = logging.getLogger(__name__)

# Checks this frequent are forked from a process that has imported the slow libraries already.
PRELOAD_BELOW = timedelta(seconds=60)
PRELOADED = (
    "pandas",
    "monitor.evidently_report",
    "retrain.dataset_job",
    "retrain.gate_job",
    "homeostat.model_runtime.torch_program",
)
TICK = 0.5


def open_context(settings: Settings, environ: Mapping[str, str], *, preload: bool) -> Context:
    """Everything the loop's steps work with; also for commands that act in its place."""
    from homeostat.registry.mlflow_registry import Registry  # seconds, that --help need not wait

    for folder in (settings.home, settings.jobs_path, settings.runs_path):
        folder.mkdir(parents=True, exist_ok=True)
    frequent = settings.monitor.every < PRELOAD_BELOW
    instruments = Instruments("loop", CollectorRegistry())
    instruments.begin(settings.model.name)
    return Context(
        settings=settings,
        state=open_state(settings.state_url),
        registry=Registry(settings),
        journal=Journal(settings.journal_path, settings.model.name, settings.model.task),
        executor=LocalExecutor(environ, PRELOADED if preload and frequent else ()),
        instruments=instruments,
        clock=utc_now,
    )


def _deliver(machine: Machine, deliver: Callable[[datetime], object]) -> None:
    if not machine.leads:
        return
    try:
        deliver(machine.context.clock())
    except Unavailable as error:
        log.warning("Alerts wait: %s", error)


def run_loop(
    context: Context,
    deliver: Callable[[datetime], object],
    serve_console: Callable[[Context, threading.Event], object],
) -> int:
    """Until SIGTERM or SIGINT. What is under way is ended, and goes on at the next start."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    machine = Machine(context)
    scheduler = BackgroundScheduler(timezone=UTC)
    # The scheduler only ticks: what is due is read from the state at each tick.
    for work in (machine.tick, lambda: _deliver(machine, deliver)):
        scheduler.add_job(
            work, "interval", seconds=TICK, max_instances=1, coalesce=True, misfire_grace_time=None
        )
    scheduler.start()
    try:
        serve_console(context, stop)
        stop.wait()
    finally:
        scheduler.shutdown(wait=True)
        machine.close()
        context.state.close()
    return 0
