"""Production: requests at a steady rate from several callers, and labels that follow late."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from homeostat.client import Client
from homeostat.errors import HomeostatError
from loop.demo.world import Digits, World, draw

CALLERS = 3
ROWS = 8  # a request
REQUESTS_PER_SECOND = 10  # a caller
LABEL_DELAY = 2.0
REMEMBERED = 400  # newest answers, for the accuracy shown


@dataclass
class Tally:
    """What the callers saw."""

    requests: int = 0
    rows: int = 0
    labels: int = 0
    failures: list[str] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)
    right: deque[bool] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


class Traffic:
    """Callers in threads of their own, until stopped."""

    def __init__(self, url: str, digits: Digits, seed: int) -> None:
        self.world = World()
        self.tally = Tally()
        self._digits = digits
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._client = Client(url)
        self._threads = [
            threading.Thread(target=self._call, args=(np.random.default_rng((seed, number)),))
            for number in range(CALLERS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def change(self, world: World) -> None:
        """From now on; the accuracy shown begins anew."""
        with self._lock:
            self.world = world
            self.tally.right.clear()

    def accuracy(self) -> float | None:
        """Of the newest answers, as the callers know the truth; None until there are enough."""
        with self._lock:
            right = self.tally.right
            return sum(right) / len(right) if len(right) >= REMEMBERED // 2 else None

    def _call(self, rng: np.random.Generator) -> None:
        due = time.monotonic()
        late: deque[tuple[float, list[dict[str, object]]]] = deque()
        while not self._stop.is_set():
            labels = self._predict(rng)
            if labels:
                late.append((time.monotonic() + LABEL_DELAY, labels))
            while late and late[0][0] <= time.monotonic():
                self._label(late.popleft()[1])
            due = max(due + 1 / REQUESTS_PER_SECOND, time.monotonic() - 1)
            self._stop.wait(max(0.0, due - time.monotonic()))

    def _predict(self, rng: np.random.Generator) -> list[dict[str, object]]:
        with self._lock:
            world = self.world
        images, truth = draw(self._digits, world, ROWS, rng)
        try:
            answer = self._client.predict(images.reshape(ROWS, 64).tolist())
        except HomeostatError as error:
            with self._lock:
                self.tally.requests += 1
                self.tally.failures.append(str(error))
            return []
        with self._lock:
            self.tally.requests += 1
            self.tally.rows += ROWS
            self.tally.versions.add(answer.version)
            if world == self.world:
                self.tally.right.extend(_hits(answer.predictions, truth))
        return [
            {"id": id_, "value": value, "source": "demo"}
            for id_, value in zip(answer.ids, truth, strict=True)
        ]

    def _label(self, labels: list[dict[str, object]]) -> None:
        try:
            stored = self._client.labels(labels)
        except HomeostatError as error:
            with self._lock:
                self.tally.failures.append(f"labels: {error}")
        else:
            with self._lock:
                self.tally.labels += stored


def _hits(predictions: Sequence[object], truth: Sequence[int]) -> list[bool]:
    return [str(said) == str(true) for said, true in zip(predictions, truth, strict=True)]
