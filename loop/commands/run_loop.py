"""homeostat loop"""

from __future__ import annotations

import random
from pathlib import Path

import click

from alerts.delivery import Deliverer
from alerts.endpoints import load_endpoints
from homeostat.settings_checks import require_files
from loop.clock import utc_now
from loop.commands.common import configure_logging, environ, settings_of
from loop.console.serving import serve_console
from loop.running import open_context, run_loop


@click.command()
@click.pass_obj
def command(project: Path) -> None:
    """Start the loop alone: checks, decisions, retraining, promotion, alerts, status page."""
    settings = settings_of(project)
    require_files(settings)
    configure_logging("loop")
    endpoints = load_endpoints(settings, environ())
    context = open_context(settings, environ(), preload=True)
    deliverer = Deliverer(
        state=context.state,
        model=settings.model.name,
        endpoints=endpoints,
        instruments=context.instruments,
        clock=utc_now,
        random=random.random,
    )
    raise SystemExit(run_loop(context, deliverer.run_once, serve_console))
