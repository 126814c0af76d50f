"""What the server counts of one model, on children of the metrics that were made beforehand."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from datetime import datetime
from time import monotonic

import numpy as np
from prometheus_client import Counter

from homeostat.journal.writer import SpoolLevel
from homeostat.metrics import Instruments
from serving.counting.observing import Observing
from serving.counting.tallies import Spread, Total, Totals
from serving.counting.version_counts import VersionCounts
from serving.rules.routing import Role

MOST_CLASSES = 50  # further ones are counted together, so that a metric cannot grow without end
OTHER = "(other)"
OK = "200"
LOW_CONFIDENCE = 0.6
MOST_WAITS = 4096  # put aside until they are counted together
# Fields of SpoolLevel, each shown as homeostat_journal_<field>_total.
JOURNAL_TOTALS = (
    "received",
    "recovered",
    "stored",
    "dropped",
    "rejected",
    "sampled_out",
    "errors",
)


class Measuring:
    """Called from the event loop's thread, and `batch` from the model's."""

    def __init__(
        self,
        instruments: Instruments,
        model: str,
        *,
        classes: bool,
        low_confidence: float = LOW_CONFIDENCE,
    ) -> None:
        def counter(name: str, **labels: str) -> Counter:
            return instruments.counter(f"homeostat_{name}_total", model=model, **labels)

        self._instruments = instruments
        self._model = model
        self._counting = threading.Lock()  # two versions may answer at once, during a swap
        self._by_class = (
            Totals(lambda shown: counter("predictions", **{"class": shown})) if classes else None
        )
        self._by_code = Totals(lambda code: counter("requests", code=code))
        self._by_code.add(OK, 0)
        self._by_kind = Totals(lambda kind: counter("errors", kind=kind))
        self._rows = Totals(lambda version: counter("rows", version=version))
        self._request_seconds, self._compute_seconds, self._batch_rows = self._spreads = [
            Spread(instruments.histogram(f"homeostat_{name}", model=model))
            for name in ("request_seconds", "compute_seconds", "batch_rows")
        ]
        self._queue_seconds = Spread(instruments.histogram("homeostat_queue_seconds", model=model))
        self._waits: list[float] = []  # in the queue, not counted yet
        self.observing = Observing(
            Spread(instruments.histogram("homeostat_confidence", model=model)),
            Total(counter("uncertain_answers")),
            low_confidence,
            monotonic,
        )
        self.versions = VersionCounts(instruments, model)
        self._labels = counter("labels")
        self._errors = counter("version_errors")
        self._journal = {field: Total(counter(f"journal_{field}")) for field in JOURNAL_TOTALS}

    def batch(
        self,
        version: str,
        rows: int,
        seconds: float | None,
        predictions: Sequence[str] | Sequence[float],
        role: str,
    ) -> None:
        """`seconds`: None where the model was not asked."""
        with self._counting:
            self.versions.rows(version, role, rows)
            if role == Role.SHADOW:  # nobody got these
                return
            if seconds is not None:
                self._compute_seconds.observe(seconds)
                self._batch_rows.observe(rows)
            self._rows.add(version, rows)
            if self._by_class is not None:
                counts = Tally(predictions) if rows > 1 else {predictions[0]: 1}
                for said, count in counts.items():
                    self._count(self._by_class, str(said), count)

    def _count(self, by_class: Totals, name: str, count: int) -> None:
        shown = name in by_class or len(by_class) < MOST_CLASSES
        by_class.add(name if shown else OTHER, count)

    def answered(self, seconds: float) -> None:
        self._request_seconds.observe(seconds)
        self._by_code.add(OK)

    def waited(self, seconds: Iterable[float]) -> None:
        """In the queue, each request of a batch."""
        waits = self._waits
        waits.extend(seconds)
        if len(waits) > MOST_WAITS:
            self._count_waits()

    def _count_waits(self) -> None:
        if self._waits:
            self._queue_seconds.observe_all(np.array(self._waits))
            self._waits.clear()

    def refused(self, status: int, kind: str = "") -> None:
        self._by_code.add(str(status))
        self._by_kind.add(kind or f"status-{status}")

    def labels_refused(self, kind: str) -> None:
        self._by_kind.add(kind)

    def unlogged(self, rows: int) -> None:
        """Answered rows that the journal could not even count."""
        for field in ("received", "dropped"):
            self._journal[field].add(rows)

    def live(self, versions: int) -> None:
        self._instruments.gauge("homeostat_versions_live", model=self._model).set(versions)

    def labels(self, count: int) -> None:
        self._labels.inc(count)

    def version_failed(self) -> None:
        self._errors.inc()

    def serves(self, version: str, epoch: int, load_seconds: float) -> None:
        gauge = self._instruments.gauge
        self._instruments.forget("homeostat_model_info", model=self._model)
        gauge("homeostat_model_info", model=self._model, version=version).set(1)
        gauge("homeostat_rollout_epoch", model=self._model).set(epoch)
        gauge("homeostat_model_load_seconds", model=self._model).set(load_seconds)

    def refresh(self, queued_rows: int, level: SpoolLevel, now: datetime) -> None:
        """Bring what is only read at a scrape up to date."""
        gauge = self._instruments.gauge
        gauge("homeostat_queued_rows", model=self._model).set(queued_rows)
        gauge("homeostat_journal_waiting_rows", model=self._model).set(level.waiting)
        gauge("homeostat_journal_spool_bytes", model=self._model).set(level.spool_bytes)
        gauge("homeostat_journal_memory_bytes", model=self._model).set(level.memory_bytes)
        self.versions.refresh()
        age = (now - level.oldest).total_seconds() if level.oldest else 0.0
        gauge("homeostat_journal_lag_seconds", model=self._model).set(max(0.0, age))
        for field, total in self._journal.items():
            total.set(getattr(level, field))
        self._count_waits()
        self._queue_seconds.pour()
        self.observing.pour()
        for tally in (self._by_code, self._by_kind, self._rows, self._by_class, *self._spreads):
            if tally is not None:
                tally.pour()
