"""A batch that failed is asked again in parts: only those requests fail that the model fails on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isqrt

from homeostat.errors import HomeostatError, JournalUnavailable, ModelAway, ModelDied, ModelSilent
from serving.batching.contract import Result
from serving.requests.parsing import Rows

MOST_DEATHS = 3  # over one batch; as many find one request that ends the model, whatever its size


class Apart:
    """For one batch that failed. `ask` raises what went wrong with a part of it, `told` is what a
    caller is told of that.

    Where no answer came in time the model is not asked again for any of it: those that wait behind
    would wait as long once more for each part. Nor is it after more than MOST_DEATHS.
    """

    def __init__(
        self,
        ask: Callable[[Sequence[Rows]], list[Result]],
        told: Callable[[Exception], HomeostatError],
    ) -> None:
        self._ask = ask
        self._told = told
        self._deaths = 0
        self._over: Exception | None = None

    def answers(self, requests: Sequence[Rows], error: Exception) -> list[Result]:
        """Of requests that failed together, with this error; called while it is handled."""
        died = isinstance(error, ModelDied)
        self._deaths += died
        if isinstance(error, ModelSilent) or self._deaths > MOST_DEATHS:
            self._over = error
        if self._over is not None or len(requests) == 1:
            return [self._told(error)] * len(requests)
        size = part_size(len(requests), self._deaths if died else 0)
        results: list[Result] = []
        for start in range(0, len(requests), size):
            results += self._part(requests[start : start + size])
        return results

    def _part(self, requests: Sequence[Rows]) -> list[Result]:
        if self._over is not None:
            return [self._told(self._over)] * len(requests)
        try:
            return self._ask(requests)
        except (JournalUnavailable, ModelAway) as error:
            return [error] * len(requests)
        except Exception as error:  # noqa: BLE001 - whatever the model raises
            return self.answers(requests, error)


def part_size(requests: int, deaths: int) -> int:
    """How many are asked together next. Halves take the fewest calls; but where each failure costs
    the start of a process, what counts is how few failures find the one that it fails on."""
    if not deaths:
        return (requests + 1) // 2
    return isqrt(requests) if deaths == 1 else 1
