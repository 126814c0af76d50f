"""homeostat up"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import click
from rich.markup import escape

from alerts.endpoints import load_endpoints
from homeostat.errors import Unavailable
from homeostat.settings import Settings
from homeostat.settings_checks import require_files
from loop.clock import utc_now
from loop.commands.common import configure_logging, environ, settings_of, state_of, terminal
from loop.household import Addresses, addresses, household, only_one, require_ports
from loop.server_door import serving_version
from loop.status import gather, next_step


@click.command()
@click.pass_obj
def command(project: Path) -> None:
    """Start everything: server, loop, status page, MLflow's UI. Ctrl-C ends all of it."""
    settings = settings_of(project)
    require_files(settings)
    load_endpoints(settings, environ())  # a missing secret is told here, not in a log
    configure_logging("up")
    lock = only_one(settings)
    require_ports(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    supervisor = household(settings, environ())
    teller = threading.Thread(target=_tell, args=(settings, stop), daemon=True)
    teller.start()
    supervisor.run(stop)
    lock.close()
    terminal.print("Everything has ended.")


def _tell(settings: Settings, stop: threading.Event) -> None:
    """Where everything is, then what happens, one line a change."""
    terminal.print(f"Starting [bold]{settings.model.name}[/]; logs in {settings.logs_path}")
    told: set[str] = set()
    said = volume = ""
    serving: str | None = None
    while not stop.wait(0.5):
        found = addresses(settings)
        for place in _places(found):
            if place not in told:
                told.add(place)
                terminal.print(place)
        try:
            with state_of(settings) as state:
                status = gather(settings, state, utc_now(), limit=1)
        except Unavailable:  # the loop waits for it, too
            continue
        if not status.loop_alive:  # it is being started
            continue
        if found.server:
            volume = volume or _say_volume(settings)
        promoted = status.rollout.champion.version if status.rollout else None
        if found.server and serving != promoted:
            serving = serving_version(settings)
        now_said = next_step(status) + _who_serves(promoted, serving)
        if now_said != said:
            said = now_said
            terminal.print(f"[dim]{utc_now():%H:%M:%S}[/] {escape(said)}")


def _places(found: Addresses) -> list[str]:
    """As far as they are there."""
    places = []
    if found.server:
        places.append(f"  predictions  {found.server}/predict  (API: {found.server}/docs)")
    if found.console:
        places.append(f"  status page  {found.console}")
    if found.mlflow and places:  # written down before all else
        places.append(f"  MLflow       {found.mlflow}")
    return places


def _who_serves(promoted: str | None, serving: str | None) -> str:
    """The record says who is to serve, and the server who does."""
    if promoted is None:
        return ""
    if promoted == serving:
        return f" Version {promoted} serves."
    return f" Version {promoted} is promoted; the server loads it."


def _say_volume(settings: Settings) -> str:
    """What the log will take, told by a child: reading the log costs memory that would stay."""
    project = str(settings.project)
    command = [sys.executable, "-P", "-m", "loop", "--project", project, "journal", "volume"]
    told = subprocess.run(command, env=dict(environ()), capture_output=True, text=True).stdout
    if told:
        terminal.print(f"  {escape(told.strip())}", soft_wrap=True)
    return told or "not known"
