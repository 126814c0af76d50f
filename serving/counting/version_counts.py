"""What is counted of versions beside each other: roles, fallbacks, breakers, shadows, the cache."""

from __future__ import annotations

from prometheus_client import Counter

from homeostat.metrics import Instruments
from serving.counting.tallies import Total
from serving.rules.circuit import Phase
from serving.rules.memory import Memory

_STATES = {Phase.CLOSED: 0, Phase.HALF_OPEN: 1, Phase.OPEN: 2}


class VersionCounts:
    """`rows` is called from a model's thread too, one at a time; the rest on the event loop's."""

    def __init__(self, instruments: Instruments, model: str) -> None:
        def counter(name: str, **labels: str) -> Counter:
            return instruments.counter(f"homeostat_{name}_total", model=model, **labels)

        self._instruments = instruments
        self._model = model
        self._rows: dict[tuple[str, str], int] = {}
        self._poured: dict[tuple[str, str], Total] = {}
        self._by_version = counter("fallback_answers", by="version")
        self._by_default = counter("fallback_answers", by="default")
        self._dropped = counter("shadow_dropped_rows")
        self._coalesced = counter("coalesced")
        self.memory: Memory | None = None  # whose numbers are shown
        self._hits, self._misses = Total(counter("cache_hits")), Total(counter("cache_misses"))

    def rows(self, version: str, role: str, count: int) -> None:
        key, rows = (version, role), self._rows
        rows[key] = rows.get(key, 0) + count

    def fell_back(self, *, default: bool) -> None:
        (self._by_default if default else self._by_version).inc()

    def shadow_dropped(self, rows: int) -> None:
        self._dropped.inc(rows)

    def coalesced(self, requests: int) -> None:
        self._coalesced.inc(requests)

    def breaker(self, version: str, phase: Phase) -> None:
        gauge = self._instruments.gauge
        gauge("homeostat_breaker_state", model=self._model, version=version).set(_STATES[phase])

    def gone(self, version: str) -> None:
        self._instruments.forget("homeostat_breaker_state", model=self._model, version=version)

    def refresh(self) -> None:
        memory = self.memory
        for key, count in list(self._rows.items()):
            if key not in self._poured:
                version, role = key
                self._poured[key] = Total(
                    self._instruments.counter(
                        "homeostat_role_rows_total", model=self._model, version=version, role=role
                    )
                )
            self._poured[key].set(count)
        if memory is not None:
            self._hits.set(memory.hits)
            self._misses.set(memory.misses)
        used = memory.bytes if memory else 0
        self._instruments.gauge("homeostat_cache_bytes", model=self._model).set(used)
