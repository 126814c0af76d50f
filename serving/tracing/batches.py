"""Batches that leave behind, with the requests that are traced, when they did what."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from homeostat.identifiers import uuid7_batch
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.model_runtime.contract import Batch, LoadedModel, Outputs
from serving.batching.answering import Answering
from serving.batching.batcher import Batcher
from serving.batching.contract import Answers, Journalling, Result, Said
from serving.batching.pace import Pace
from serving.requests.asked import Asked
from serving.requests.forms import Written
from serving.requests.later import Later
from serving.requests.parsing import Rows
from serving.tracing.trace import Stages, Trace
from serving.tracing.tracing import Tracing

MOST_IDS = 100  # that a trace names; how many rows there were it says beside them


class Followed:
    """The requests of one version that are traced, from its queue to their answers."""

    def __init__(self, tracing: Tracing, model: str, version: str) -> None:
        self.tracing = tracing
        self.watch = Watch()
        self._model = model
        self._version = version
        self._traces: dict[int, Trace] = {}

    def __bool__(self) -> bool:
        return bool(self._traces)

    def begin(self, rows: Rows, trace: Trace) -> None:
        if rows.ids is None:
            rows.ids = uuid7_batch(rows.count)
        trace.model, trace.version, trace.role = self._model, self._version, rows.role
        trace.rows, trace.ids = rows.count, rows.ids[:MOST_IDS]
        trace.queued, trace.stages = self.tracing.now_ns(), None

    def until(self, rows: Rows, trace: Trace, answer: Later[Written]) -> None:
        """`rows` stay the same object all the way."""
        self._traces[id(rows)] = trace
        answer.add_done_callback(lambda _: self._traces.pop(id(rows)))

    def tell(self, requests: Sequence[Rows], stages: Stages) -> None:
        """The last try of a request is the one that counts."""
        for request in requests:
            trace = self._traces.get(id(request))
            if trace is not None:
                trace.stages = stages


class Watch(threading.local):
    """What the thread is at, if anybody wants to know."""

    stages: Stages | None = None


class TracedBatcher(Batcher):
    def __init__(self, answer: Answers, pace: Pace, followed: Followed, **more: Any) -> None:
        super().__init__(answer, pace, **more)
        self._followed = followed

    def submit(self, rows: Rows, asked: Asked | None = None) -> Later[Written]:
        trace = self._followed.tracing.current
        if trace is None:
            return super().submit(rows, asked)
        self._followed.begin(rows, trace)
        with self._followed.tracing.looking_at_none():  # the batch answers others too
            answer = super().submit(rows, asked)
        self._followed.until(rows, trace, answer)
        return answer


class TracedAnswering(Answering):
    def __init__(
        self,
        model: LoadedModel,
        journal: Journalling,
        *others: Any,
        followed: Followed,
        **more: Any,
    ) -> None:
        watch, now_ns = followed.watch, followed.tracing.now_ns
        timed = _TimedModel(model, watch, now_ns), _TimedJournal(journal, watch, now_ns)
        super().__init__(*timed, *others, **more)
        self._followed = followed

    def together(
        self,
        requests: Sequence[Rows],
        wait: float = 0.0,
        *,
        logged: bool = True,
        said: Said | None = None,
    ) -> list[Result]:
        followed = self._followed
        if not followed:
            return super().together(requests, wait, logged=logged, said=said)
        watch, now_ns = followed.watch, followed.tracing.now_ns
        stages = Stages(now_ns(), sum(request.count for request in requests))
        watch.stages = stages
        try:
            return super().together(requests, wait, logged=logged, said=said)
        finally:
            watch.stages, stages.ended = None, now_ns()
            followed.tell(requests, stages)


class _TimedModel:
    """See model_runtime.contract.LoadedModel."""

    def __init__(self, model: LoadedModel, watch: Watch, now_ns: Any) -> None:
        self.spec = model.spec
        self.loop_rows = model.loop_rows
        self._model = model
        self._watch = watch
        self._now_ns = now_ns

    def predict(self, batch: Batch) -> Outputs:
        stages = self._watch.stages
        if stages is None:
            return self._model.predict(batch)
        began = self._now_ns() if stages.computed is None else stages.computed[0]
        try:
            return self._model.predict(batch)
        finally:
            stages.computed = began, self._now_ns()

    def close(self) -> None:
        self._model.close()


class _TimedJournal:
    """See batching.contract.Journalling."""

    def __init__(self, journal: Journalling, watch: Watch, now_ns: Any) -> None:
        self._journal = journal
        self._watch = watch
        self._now_ns = now_ns

    def append(self, batch: PredictionBatch, wait: float = 0.0) -> None:
        stages = self._watch.stages
        if stages is None:
            self._journal.append(batch, wait)
            return
        began = self._now_ns()
        try:
            self._journal.append(batch, wait)
        finally:
            stages.logged = began, self._now_ns()
