"""`python -m serving --project DIR [--project DIR2 …] [--workers N]`: the model server's entry."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from homeostat.errors import HomeostatError
from homeostat.settings import Settings, load
from serving.processes.last_moments import end_soon
from serving.processes.logs import configure_logging
from serving.processes.open_files import allow_all_files

if TYPE_CHECKING:
    from homeostat.journal.writer import JournalWriter

log = logging.getLogger("serving")


def main(
    arguments: Sequence[str],
    environ: MutableMapping[str, str],
    open_journal: Callable[[Settings, Mapping[str, str]], JournalWriter] | None = None,
) -> int:
    """0 after a signal and an orderly end, 1 where the settings do not allow a start. With a
    journal of the caller's own there is one process."""
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    parser.add_argument(
        "--project",
        action="append",
        required=True,
        type=Path,
        help="folder with homeostat.toml; repeat it for more models; the first names the address",
    )
    parser.add_argument("--workers", type=_count, help="processes that share the port")
    options = parser.parse_args(arguments)
    configure_logging()
    allow_all_files()
    try:
        projects = [load(path, environ) for path in options.project]
        workers = options.workers or projects[0].serving.workers
        if workers > 1 and open_journal is None:
            # imported where it is needed: a supervisor has nothing of what a server imports
            from serving.processes.workers import supervise_workers

            return supervise_workers(options.project, projects, options.workers, environ)
        from serving.processes.process import run

        run(projects, environ, open_journal)
    except HomeostatError as error:
        log.error("%s", error)
        return 1
    return 0


def _count(text: str) -> int:
    from serving.sharing.seats import MOST

    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"a number from 1 to {MOST}, not {text}")
    return int(text)


if __name__ == "__main__":
    status = main(sys.argv[1:], os.environ)
    end_soon(status)
    sys.exit(status)
