"""The helper process that fills the local cache, so that no server has to import MLflow.

`python -m homeostat.registry fetch --project DIR --version V` prints one line of JSON,
{"version": …, "digest": …}. Exit status 75: MLflow is away, the same call may work later.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from homeostat.errors import HomeostatError, Unavailable
from homeostat.records import to_json
from homeostat.registry.feature_names import feature_names
from homeostat.registry.mlflow_registry import Registry
from homeostat.settings import load

TRY_LATER = 75  # EX_TEMPFAIL of sysexits.h


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m homeostat.registry")
    verbs = parser.add_subparsers(required=True)
    fetch = verbs.add_parser("fetch", help="bring a version into the local cache")
    fetch.add_argument("--project", type=Path, required=True, help="folder of homeostat.toml")
    fetch.add_argument("--version", required=True, help="version of the registered model")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        settings = load(options.project, os.environ)
        names = feature_names(settings)
        found = Registry(settings).fetch(options.version, feature_names=names)
    except HomeostatError as error:
        sys.stderr.write(f"{error}\n")
        return TRY_LATER if isinstance(error, Unavailable) else 1
    sys.stdout.buffer.write(to_json(found) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
