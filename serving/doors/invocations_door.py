"""POST /invocations, whatever carries the request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from time import perf_counter

import msgspec

from homeostat.errors import InputError
from homeostat.records import ModelSpec
from serving.requests.aside import LARGE
from serving.requests.asked import Asked, asked_of
from serving.requests.door import Headers, Refusal
from serving.requests.forms import Piece, Written
from serving.requests.invocations import from_csv, from_json
from serving.requests.later import Later
from serving.requests.limits import charged
from serving.requests.parsing import Rows
from serving.requests.problem import Problem, Refused, problem_of
from serving.versions.dispatch import dispatch
from serving.versions.reading import read_aside
from serving.versions.served_model import ServedModel, Version

Read = Callable[[bytes, ModelSpec, float], bytes]  # of at most so many rows

SCORING = "/invocations"  # how the paths end
MAX_DIGITS = 19
READERS: Mapping[str, Read] = {
    "application/json": from_json,
    "text/csv": from_csv,
}
CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    413: "REQUEST_LIMIT_EXCEEDED",
    429: "REQUEST_LIMIT_EXCEEDED",
    504: "DEADLINE_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
}
_encode = msgspec.json.Encoder().encode


class InvocationsDoor:
    """See door.Door."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model
        self._measuring = model.measuring
        self._deadline = model.settings.serving.deadline.total_seconds()
        self.limit = int(model.settings.serving.max_body)

    def admit(self, headers: Headers) -> tuple[Read, Asked | None]:
        """How the body is read, and who asks."""
        asked = asked_of(headers, self._model.keys, self.limit, self._deadline)
        kind = next((value for name, value in headers if name == b"content-type"), b"")
        return _reader(kind), asked

    def answer(self, body: bytes, told: tuple[Read, Asked | None]) -> Later[Written]:
        brought, asked = told

        def read(version: Version) -> Rows:
            reader = version.reader
            rows = reader.read(brought(body, version.model.spec, reader.most_rows))
            rows.form = written
            return rows

        if len(body) > LARGE:
            return read_aside(self._model, read, asked, len(body))
        version, charge = self._model.plain, asked.charge if asked is not None else None
        if version is None or charge is not None:
            return dispatch(self._model, charged(read, charge), asked)
        return version.batcher.submit(read(version), asked)

    def answered(self, started: float) -> None:
        self._measuring.answered(perf_counter() - started)

    def refuse(self, error: BaseException) -> Refusal:
        problem = problem_of(error)
        status = 400 if isinstance(error, InputError) else problem.status
        self._measuring.refused(status, problem.kind)
        return scoring_refusal(problem, status)


def scoring_refusal(problem: Problem, status: int) -> Refusal:
    """As MLflow has it."""
    code = CODES.get(status, "INTERNAL_ERROR" if status >= 500 else "BAD_REQUEST")
    headers = problem.headers() | {"content-type": "application/json"}
    return Refusal(status, headers, _encode({"error_code": code, "message": problem.text()}))


def written(piece: Piece) -> bytes:
    """What `mlflow models serve` answers, with the ids that labels refer to beside it."""
    whole = whole_numbers(piece.classes)
    predictions = (
        [whole.get(each, each) for each in piece.predictions] if whole else piece.predictions
    )
    answer = {"predictions": predictions, "ids": piece.ids, "version": piece.version}
    return _encode(answer | {"fallback": True} if piece.fallback else answer)


@lru_cache(maxsize=64)
def whole_numbers(classes: tuple[str, ...]) -> Mapping[str | float, int] | None:
    """The classes as the numbers they were trained as, if all of them are whole numbers."""
    numbers: dict[str | float, int] = {}
    for name in classes:
        digits = name.removeprefix("-")
        if len(name) > MAX_DIGITS or not digits.isdigit() or str(int(name)) != name:
            return None
        numbers[name] = int(name)
    return numbers


def _reader(content_type: bytes) -> Read:
    kind, *parameters = content_type.decode("latin-1").lower().split(";")
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name != "charset" or value.strip('"') not in ("utf-8", "utf8"):
            raise Refused("only UTF-8 is read, and no other parameter of a type", status=415)
    read = READERS.get(kind.strip() or "application/json")
    if read is None:
        raise Refused(f"send {' or '.join(READERS)}, not {kind[:80]}", status=415)
    return read
