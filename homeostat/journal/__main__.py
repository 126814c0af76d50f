"""`python -m homeostat.journal upkeep FOLDER`: one upkeep in a process that ends. See jobs."""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from homeostat import settings
from homeostat.jobs import UpkeepJob, UpkeepResult, run_job

USAGE = "usage: python -m homeostat.journal upkeep FOLDER\n"


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] != "upkeep":
        sys.stderr.write(USAGE)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    return run_job(Path(arguments[1]), UpkeepJob, _work)


def _work(spec: UpkeepJob) -> UpkeepResult:
    os.nice(10)  # it yields to what serves
    from homeostat.journal.keeping.upkeep import keeping_of, upkeep

    chosen = settings.load(Path(spec.project), os.environ)
    model = chosen.model
    return upkeep(
        chosen.journal_path,
        model.name,
        model.task,
        keeping_of(chosen.journal),
        now=datetime.now(UTC),
        since=spec.since,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
