"""`python -m monitor check FOLDER`: one check in a process that ends. See homeostat.jobs."""

from __future__ import annotations

import gc
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from homeostat import settings
from homeostat.jobs import CheckJob, CheckResult, run_job
from monitor import job

USAGE = "usage: python -m monitor check FOLDER\n"


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] != "check":
        sys.stderr.write(USAGE)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    # Importing Evidently makes millions of objects, none of them garbage: looking for some among
    # them takes a quarter of its time, and this process ends before any matters.
    gc.set_threshold(200_000, 50, 1000)
    return run_job(Path(arguments[1]), CheckJob, _work)


def _work(spec: CheckJob) -> CheckResult:
    chosen = settings.load(Path(spec.project), os.environ)
    return job.check(spec, chosen, clock=lambda: datetime.now(UTC))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
