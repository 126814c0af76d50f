"""POST /v2/models/MODEL/infer, whatever carries the request."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

import msgspec

from homeostat.errors import InputError
from serving.open_inference.rest_request import takes_long
from serving.requests.aside import LARGE
from serving.requests.asked import Asked, asked_of
from serving.requests.door import Headers, Refusal
from serving.requests.forms import Written
from serving.requests.later import Later
from serving.requests.limits import charged
from serving.requests.parsing import Rows
from serving.requests.problem import Problem, Refused, problem_of
from serving.versions.dispatch import dispatch
from serving.versions.reading import named_version, read_aside
from serving.versions.served_model import ServedModel, Version

_MAX_DIGITS = 18


class InferDoor:
    """See door.Door."""

    def __init__(self, model: ServedModel, version: str | None = None) -> None:
        """Without a version it is always the one that serves."""
        self._model = model
        self._version = version
        self._measuring = model.measuring
        self._deadline = model.settings.serving.deadline.total_seconds()
        self.limit = int(model.settings.serving.max_body)

    def admit(self, headers: Headers) -> tuple[int | None, Asked | None]:
        """How long the JSON part is, where not all of it is; and who asks."""
        length = None
        for name, value in headers:
            match name:
                case b"inference-header-content-length":
                    length = _number(value)
                case b"content-encoding" if value.lower() != b"identity":
                    raise Refused("send the body as it is, not compressed", status=415)
        return length, asked_of(headers, self._model.keys, self.limit, self._deadline)

    def answer(self, body: bytes, told: tuple[int | None, Asked | None]) -> Later[Written]:
        length, asked = told
        if len(body) > LARGE and self._takes_long(body, length):
            return read_aside(
                self._model,
                lambda serving: serving.v2.read(body, length),
                asked,
                len(body),
                self._version,
            )
        version, charge = self._model.plain, asked.charge if asked is not None else None
        if version is None or self._version is not None or charge is not None:

            def read(version: Version) -> Rows:
                return version.v2.read(body, length)

            return dispatch(self._model, charged(read, charge), asked, self._version)
        return version.batcher.submit(version.v2.read(body, length), asked)

    def _takes_long(self, body: bytes, length: int | None) -> bool:
        if takes_long(body, length):
            return True
        return named_version(self._model, self._version).v2.listed

    def answered(self, started: float) -> None:
        self._measuring.answered(perf_counter() - started)

    def refuse(self, error: BaseException) -> Refusal:
        refusal = refusal_of(error)
        self._measuring.refused(refusal.status, problem_of(error).kind)
        return refusal


def refusal_of(error: BaseException) -> Refusal:
    """An error as the protocol has it: {"error": …}, and 400 for whatever is wrong with it."""
    problem = problem_of(error)
    status = 400 if isinstance(error, InputError) else problem.status
    headers = problem.headers() | {"content-type": "application/json"}
    return Refusal(status, headers, error_body(problem))


def error_body(problem: Problem) -> bytes:
    told: Mapping[str, str] = {"error": problem.text()}
    return msgspec.json.encode(told)


def _number(value: bytes) -> int:
    if not value.isdigit() or len(value) > _MAX_DIGITS:
        raise Refused("Inference-Header-Content-Length is not a number of bytes", status=400)
    return int(value)
