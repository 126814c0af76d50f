"""Equal requests are computed once: those that are in flight together, and with a cache those of
before.

Each still has ids and a row of the log of its own, and the log says that they were not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from homeostat.errors import HomeostatError
from homeostat.model_runtime.contract import Outputs
from serving.batching.answering import Answering
from serving.batching.contract import Result
from serving.batching.joining import joined
from serving.requests.parsing import Rows
from serving.rules.memory import Input, Memory, input_of


class Recalling:
    """Stands before one version's Answering, and is called as it is."""

    def __init__(
        self,
        answering: Answering,
        version: str,
        memory: Memory | None,
        coalesced: Callable[[int], None],
    ) -> None:
        self._answering = answering
        self._version = version
        self._memory = memory
        self._coalesced = coalesced
        self._last: dict[Input, Outputs] = {}  # of the batch before; its equals waited meanwhile

    def forget(self) -> None:
        """Nobody waits any more: what comes from here on was not in flight with what is over."""
        self._last = {}

    def computing(self) -> bool:
        return self._answering.computing()

    def answer(
        self, requests: Sequence[Rows], wait: float = 0.0, *, logged: bool = True
    ) -> list[Result]:
        inputs = [input_of(request) for request in requests]
        found = self._remembered(inputs)
        first = {given: place for place, given in reversed(list(enumerate(inputs)))}
        fresh = [place for given, place in first.items() if given not in found]
        results: dict[int, Result] = {}
        if fresh:
            said = _Learning([requests[place] for place in fresh])
            answers = self._answering.answer(said.requests, wait, logged=logged, said=said)
            results = dict(zip(fresh, answers, strict=True))
            for place in fresh:
                outputs = said.learnt.get(id(requests[place]))
                if outputs is not None:
                    found[inputs[place]] = outputs
                    self._remember(inputs[place], outputs)
        self._last = found
        again = [place for place in range(len(requests)) if place not in results]
        known = [place for place in again if inputs[place] in found]
        if known:
            repeated = [requests[place] for place in known]
            outputs_of = {id(requests[place]): found[inputs[place]] for place in known}
            answers = self._answering.answer(
                repeated, wait, logged=logged, said=_Repeating(outputs_of)
            )
            results |= dict(zip(known, answers, strict=True))
        for place in again:  # what failed one of two equals fails the other
            if place not in results:
                results[place] = _failure_of(results[first[inputs[place]]])
        return [results[place] for place in range(len(requests))]

    def _remembered(self, inputs: Sequence[Input]) -> dict[Input, Outputs]:
        last, different = self._last, set(inputs)
        found = {given: last[given] for given in different if given in last}
        twins = len(inputs) - len(different) + len(found)
        if twins:
            self._coalesced(twins)
        if self._memory is not None:
            for given in different - found.keys():
                outputs = self._memory.get(self._version, given)
                if outputs is not None:
                    found[given] = outputs
        return found

    def _remember(self, given: Input, outputs: Outputs) -> None:
        if self._memory is not None:
            self._memory.put(self._version, given, outputs)


class _Learning:
    """See answering.Said: knows nothing yet."""

    def __init__(self, requests: Sequence[Rows]) -> None:
        self.requests = requests
        self.learnt: dict[int, Outputs] = {}

    def known(self, _requests: Sequence[Rows]) -> Outputs | None:
        return None

    def learn(self, requests: Sequence[Rows], outputs: Outputs) -> None:
        start = 0
        for request in requests:
            part = slice(start, start + request.count)
            self.learnt[id(request)] = Outputs(
                outputs.predictions[part],
                _part(outputs.probabilities, part),
                _part(outputs.embedding, part),
            )
            start = part.stop


class _Repeating:
    """See answering.Said: knows them all."""

    def __init__(self, outputs: dict[int, Outputs]) -> None:
        self._outputs = outputs

    def known(self, requests: Sequence[Rows]) -> Outputs | None:
        parts = [self._outputs[id(request)] for request in requests]
        predictions: Any = [said for part in parts for said in part.predictions]
        return Outputs(
            predictions,
            joined([part.probabilities for part in parts]),
            joined([part.embedding for part in parts]),
        )

    def learn(self, _requests: Sequence[Rows], _outputs: Outputs) -> None: ...


def _part(values: Any, part: slice) -> Any:
    """A copy: what is kept must not keep the whole batch."""
    return None if values is None else values[part].copy()


def _failure_of(result: Result) -> Result:
    assert isinstance(result, HomeostatError)
    return result
