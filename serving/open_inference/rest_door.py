"""POST /v2/models/MODEL/infer, whatever carries the request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import perf_counter

import msgspec

from homeostat.auth import Scope
from homeostat.errors import InputError
from serving.body import too_large
from serving.door import Headers, Refusal
from serving.forms import Written
from serving.problem import Problem, Refused, problem_of
from serving.served_model import ServedModel, Version

_MAX_DIGITS = 18


class InferDoor:
    """See door.Door."""

    def __init__(self, model: ServedModel, version: str | None = None) -> None:
        """Without a version it is always the one that serves."""
        self._model = model
        self._version = version
        self._measuring = model.measuring
        self.limit = int(model.settings.serving.max_body)

    def admit(self, headers: Headers) -> int | None:
        """How long the JSON part is, where not all of it is."""
        length, authorization, twice = None, None, 2 * self.limit
        for name, value in headers:
            match name:
                case b"inference-header-content-length":
                    length = _number(value)
                case b"authorization":
                    authorization = authorization or value.decode("latin-1")
                case b"content-length" if value.isdigit() and int(value) > twice:
                    raise too_large(self.limit)
                case b"content-encoding" if value.lower() != b"identity":
                    raise Refused("send the body as it is, not compressed", status=415)
        keys = self._model.keys
        if keys:
            keys.allow(authorization, Scope.PREDICT)
        return length

    def answer(self, body: bytes, told: int | None) -> asyncio.Future[Written]:
        version = named_version(self._model, self._version)
        return version.batcher.submit(version.v2.read(body, told))

    def answered(self, started: float) -> None:
        self._measuring.answered(perf_counter() - started)

    def refuse(self, error: BaseException) -> Refusal:
        refusal = refusal_of(error)
        self._measuring.refused(refusal.status)
        return refusal


def named_version(model: ServedModel, version: str | None) -> Version:
    """The one that serves, or the one of that name; raises Refused (404), NotReady."""
    current = model.current or model.ready()
    if version is None or current.ref.version == version:
        return current
    previous = model.previous
    if previous is not None and previous.ref.version == version:
        return previous
    there = [each.ref.version for each in (previous, current) if each is not None]
    raise Refused(
        f"version {version[:40]} of {model.name} is not in memory; there is {', '.join(there)}",
        status=404,
    )


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
