"""What commands share: the project's settings, its state, a run followed to its end."""

from __future__ import annotations

import getpass
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from homeostat.settings import Settings, load
from homeostat.state.store import State, open_state

if TYPE_CHECKING:
    from homeostat.journal.reader import Journal

terminal = Console(highlight=False)


def environ() -> Mapping[str, str]:
    return os.environ


def settings_of(project: Path) -> Settings:
    return load(project.resolve(), environ())


def journal_of(settings: Settings) -> Journal:
    from homeostat.journal.reader import Journal  # takes a while, and most commands need none

    return Journal(settings.journal_path, settings.model.name, settings.model.task)


def say(line: str) -> None:
    """As it is: nothing in it is markup, and no line is cut."""
    terminal.print(escape(line), soft_wrap=True)


@contextmanager
def state_of(settings: Settings) -> Iterator[State]:
    state = open_state(settings.state_url)
    try:
        yield state
    finally:
        state.close()


def actor() -> str:
    """Who gives the order, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def configure_logging(name: str) -> None:
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s {name} %(levelname)s %(message)s",
        datefmt="%F %T",
    )
    # A tick that takes longer than the pause between two is no news.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    for noisy in ("httpx", "alembic", "mlflow", "uvicorn", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
