"""Lines on standard error, for all processes of the server."""

from __future__ import annotations

import logging
import sys


def configure_logging(process: str = "") -> None:
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format=f"%(asctime)s %(levelname)s {process}%(name)s: %(message)s",
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
