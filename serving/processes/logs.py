"""Lines on standard error, for all processes of the server."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

SELDOM = 60.0  # seconds


def configure_logging(process: str = "") -> None:
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format=f"%(asctime)s %(levelname)s {process}%(name)s: %(message)s",
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # why a collector does not take traces, which it says of every try
    traces = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    traces.setLevel(logging.ERROR)
    traces.addFilter(Seldom(SELDOM, time.monotonic))


class Seldom(logging.Filter):
    """Lets a line through, and then none for so many seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        super().__init__()
        self._seconds = seconds
        self._clock = clock
        self._until = clock()

    def filter(self, _record: logging.LogRecord) -> bool:
        now = self._clock()
        if now < self._until:
            return False
        self._until = now + self._seconds
        return True
