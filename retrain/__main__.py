"""`python -m retrain dataset|gate FOLDER`: one job in a process that ends. See homeostat.jobs."""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from homeostat import settings
from homeostat.jobs import DatasetJob, DatasetResult, GateJob, GateResult, run_job

USAGE = "usage: python -m retrain dataset|gate FOLDER\n"


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in ("dataset", "gate"):
        sys.stderr.write(USAGE)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    verb, folder = arguments
    if verb == "dataset":
        return run_job(Path(folder), DatasetJob, _dataset)
    return run_job(Path(folder), GateJob, _gate)


def _dataset(spec: DatasetJob) -> DatasetResult:
    from retrain import dataset_job  # the gate needs no Delta, the dataset no torch

    chosen = settings.load(Path(spec.project), os.environ)
    return dataset_job.build(spec, chosen, clock=lambda: datetime.now(UTC))


def _gate(spec: GateJob) -> GateResult:
    from retrain import gate_job

    return gate_job.decide(spec, settings.load(Path(spec.project), os.environ))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
