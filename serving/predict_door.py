"""POST predict for one model, whatever carries the request: keys, limits, rows, the queue."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

from homeostat.auth import Scope
from serving.body import authorization, check_length
from serving.door import Headers, Refusal
from serving.forms import Written
from serving.images import is_image
from serving.problem import problem_of
from serving.served_model import ServedModel


class PredictDoor:
    """See door.Door."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model
        self._measuring = model.measuring
        self.limit = int(model.settings.serving.max_body)

    def admit(self, headers: Headers) -> None:
        keys = self._model.keys
        if keys:
            keys.allow(authorization(headers), Scope.PREDICT)
        check_length(headers, self.limit)

    def answer(self, body: bytes, _told: Any) -> asyncio.Future[Written]:
        model = self._model
        version = model.current or model.ready()
        if body[:1] != b"{" and is_image(body):
            return version.images.later(body, version.batcher.submit)
        return version.batcher.submit(version.reader.read(body))

    def answered(self, started: float) -> None:
        self._measuring.answered(perf_counter() - started)

    def refuse(self, error: BaseException) -> Refusal:
        problem = problem_of(error)
        self._measuring.refused(problem.status)
        return Refusal(problem.status, problem.headers(), problem.body())
