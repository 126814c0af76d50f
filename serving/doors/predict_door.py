"""POST predict for one model, whatever carries the request: keys, limits, rows, the queue."""

from __future__ import annotations

from time import perf_counter

from serving.requests.aside import LARGE
from serving.requests.asked import Asked, asked_of
from serving.requests.door import Headers, Refusal, plainly
from serving.requests.forms import Written
from serving.requests.images import is_image
from serving.requests.later import Later
from serving.requests.limits import charged
from serving.requests.parsing import Rows
from serving.requests.problem import problem_of
from serving.versions.dispatch import dispatch
from serving.versions.reading import after_reading, named_version, read_aside
from serving.versions.served_model import ServedModel
from serving.versions.version import Version


class PredictDoor:
    """See door.Door."""

    def __init__(self, model: ServedModel, version: str | None = None) -> None:
        """Without a version the rollout says which."""
        self._model = model
        self._version = version
        self._measuring = model.measuring
        self._deadline = model.settings.serving.deadline.total_seconds()
        self.limit = int(model.settings.serving.max_body)

    def admit(self, headers: Headers) -> Asked | None:
        return asked_of(headers, self._model.keys, self.limit, self._deadline)

    def answer(self, body: bytes, told: Asked | None) -> Later[Written]:
        if body[:1] != b"{" and is_image(body):
            return self._answer_image(body, told)
        if len(body) > LARGE:
            return read_aside(
                self._model,
                lambda serving: serving.reader.read(body),
                told,
                len(body),
                self._version,
            )
        version, charge = self._model.plain, told.charge if told is not None else None
        if version is None or self._version is not None or charge is not None:

            def read(version: Version) -> Rows:
                return version.reader.read(body)

            return dispatch(self._model, charged(read, charge), told, self._version)
        return version.batcher.submit(version.reader.read(body), told)

    def _answer_image(self, body: bytes, told: Asked | None) -> Later[Written]:
        version = named_version(self._model, self._version)
        then = after_reading(self._model, version, told, self._version)
        return version.images.later(body, then, told)

    def answered(self, started: float) -> None:
        self._measuring.answered(perf_counter() - started)

    def refuse(self, error: BaseException) -> Refusal:
        problem = problem_of(error)
        self._measuring.refused(problem.status, problem.kind)
        return plainly(problem)
