"""What the server counts of one model, on children of the metrics that were made beforehand."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Sequence
from datetime import datetime

from prometheus_client import Counter

from homeostat.journal.writer import SpoolLevel
from homeostat.metrics import Instruments

MOST_CLASSES = 50  # further ones are counted together, so that a metric cannot grow without end
OTHER = "(other)"


class Measuring:
    """Called from the event loop's thread, and `batch` from the model's."""

    def __init__(self, instruments: Instruments, model: str, *, classes: bool) -> None:
        self._instruments = instruments
        self._model = model
        self._classes = classes
        self._by_class: dict[str, Counter] = {}
        self._by_code: dict[int, Counter] = {}
        self._ok = self._code(200)
        self._rows: dict[str, Counter] = {}
        self._request_seconds = instruments.histogram("homeostat_request_seconds", model=model)
        self._compute_seconds = instruments.histogram("homeostat_compute_seconds", model=model)
        self._batch_rows = instruments.histogram("homeostat_batch_rows", model=model)
        self._labels = instruments.counter("homeostat_labels_total", model=model)
        self._errors = instruments.counter("homeostat_version_errors_total", model=model)
        self._received = _Total(
            instruments.counter("homeostat_journal_received_total", model=model)
        )
        self._stored = _Total(instruments.counter("homeostat_journal_stored_total", model=model))
        self._failed = _Total(instruments.counter("homeostat_journal_errors_total", model=model))

    def batch(
        self, version: str, rows: int, seconds: float, predictions: Sequence[str] | Sequence[float]
    ) -> None:
        self._compute_seconds.observe(seconds)
        self._batch_rows.observe(rows)
        counter = self._rows.get(version)
        if counter is None:
            counter = self._rows[version] = self._instruments.counter(
                "homeostat_rows_total", model=self._model, version=version
            )
        counter.inc(rows)
        if self._classes:
            for name, count in Tally(predictions).items():
                self._class(str(name)).inc(count)

    def answered(self, seconds: float) -> None:
        self._request_seconds.observe(seconds)
        self._ok.inc()

    def refused(self, status: int) -> None:
        self._code(status).inc()

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
        gauge("homeostat_journal_spool_bytes", model=self._model).set(level.spool_bytes)
        age = (now - level.oldest).total_seconds() if level.oldest else 0.0
        gauge("homeostat_journal_lag_seconds", model=self._model).set(max(0.0, age))
        self._received.set(level.received)
        self._stored.set(level.stored)
        self._failed.set(level.errors)

    def _code(self, status: int) -> Counter:
        counter = self._by_code.get(status)
        if counter is None:
            counter = self._by_code[status] = self._instruments.counter(
                "homeostat_requests_total", model=self._model, code=str(status)
            )
        return counter

    def _class(self, name: str) -> Counter:
        counter = self._by_class.get(name)
        if counter is None:
            shown = name if len(self._by_class) < MOST_CLASSES else OTHER
            counter = self._instruments.counter(
                "homeostat_predictions_total", **{"model": self._model, "class": shown}
            )
            if shown is name:
                self._by_class[name] = counter
        return counter


class _Total:
    """A counter fed with a running total that somebody else keeps."""

    def __init__(self, counter: Counter) -> None:
        self._inc: Callable[[float], None] = counter.inc
        self._seen = 0

    def set(self, total: int) -> None:
        if total > self._seen:
            self._inc(total - self._seen)
            self._seen = total
