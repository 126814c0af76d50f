"""`python -m serving --project DIR [--project DIR2 …]`: the model server's entry."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path

import numpy as np
import uvloop

from homeostat.errors import HomeostatError
from homeostat.journal.writer import JournalWriter
from homeostat.settings import Settings, load
from serving.journal import journal_writer
from serving.server import serve

log = logging.getLogger("serving")


def main(
    arguments: Sequence[str],
    environ: MutableMapping[str, str],
    open_journal: Callable[[Settings, Mapping[str, str]], JournalWriter] = journal_writer,
) -> int:
    """0 after a signal and an orderly end, 1 where the settings do not allow a start."""
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    parser.add_argument(
        "--project",
        action="append",
        required=True,
        type=Path,
        help="folder with homeostat.toml; repeat it for more models; the first names the address",
    )
    options = parser.parse_args(arguments)
    _configure_logging()
    try:
        projects = [load(path, environ) for path in options.project]
        # torch.set_num_threads holds for the thread that calls it; a pool of spinning threads
        # beside each of the others would cost more than the model itself
        threads = max(settings.serving.threads for settings in projects)
        environ.setdefault("OMP_NUM_THREADS", str(threads))
        # what becomes infinite as a float32 is found, and its caller told: no warning needed
        np.seterr(over="ignore")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(projects, lambda settings: open_journal(settings, environ)))
    except HomeostatError as error:
        log.error("%s", error)
        return 1
    return 0


def _configure_logging() -> None:
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
