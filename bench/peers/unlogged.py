"""`python -m bench.peers.unlogged --project DIR`: our server with a journal that takes nothing.

There is no such setting: it exists to say what logging costs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.writer import JournalWriter
from homeostat.settings import Settings
from serving.__main__ import main
from serving.versions.journal import journal_writer


def silent_writer(settings: Settings, environ: Mapping[str, str]) -> JournalWriter:
    writer = journal_writer(settings, environ)
    writer.append = _forget  # type: ignore[method-assign]  # all else stays, so only logging is off
    return writer


def _forget(batch: PredictionBatch, wait: float = 0.0) -> None:
    """Neither encoded nor written."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ, silent_writer))
