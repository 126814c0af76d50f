"""inference.GRPCInferenceService, on the HTTP server's event loop and before the same queues."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from time import perf_counter
from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from homeostat.auth import Scope
from homeostat.errors import AuthError, HomeostatError, InputError
from serving.doors.admin_app import allow_any
from serving.doors.inference_pages import about_server, about_version
from serving.doors.naming import model_of
from serving.doors.rest_door import refusal_of
from serving.http2 import messages as codes
from serving.http2.calls import Answer, Call
from serving.http2.messages import Refused
from serving.open_inference import open_inference_pb2 as messages
from serving.open_inference.grpc_messages import parse, read_rows, takes_long
from serving.requests.aside import LARGE
from serving.requests.asked import Asked, seconds_of_grpc
from serving.requests.body import too_large
from serving.requests.later import Later, failed
from serving.requests.limits import charged
from serving.requests.parsing import Rows
from serving.requests.problem import kind_of, problem_of
from serving.versions.dispatch import dispatch
from serving.versions.reading import named_version, read_aside
from serving.versions.served_model import ServedModel
from serving.versions.version import Version

log = logging.getLogger(__name__)

SERVICE = "/inference.GRPCInferenceService/"
INFER = f"{SERVICE}ModelInfer".encode()
CODES = {
    400: codes.INVALID_ARGUMENT,
    401: codes.UNAUTHENTICATED,
    403: codes.PERMISSION_DENIED,
    404: codes.NOT_FOUND,
    413: codes.RESOURCE_EXHAUSTED,
    429: codes.RESOURCE_EXHAUSTED,
    503: codes.UNAVAILABLE,
    504: codes.DEADLINE_EXCEEDED,
}
MOST_OF_OTHERS = 65_536  # bytes of a message that is no inference, for which no key may be needed
Method = Callable[[Any, str | None], Coroutine[Any, Any, Any]]


class InferenceCalls:
    """See http2.calls.Calls. `check` raises AuthError where reading needs a key, `ready`
    NotReady; `refused` is told what is refused before its model is known."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        check: Callable[[str | None], None],
        ready: Callable[[], Awaitable[None]],
        refused: Callable[[int, str], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.limit = max(int(model.settings.serving.max_body) for model in models.values())
        self._models = models
        self._check = check
        self._ready = ready
        self._count = refused
        self._loop = loop
        self._running: set[asyncio.Task[bytes]] = set()
        self._others: dict[bytes, tuple[Method, Any]] = {
            f"{SERVICE}{name}".encode(): each
            for name, each in {
                "ServerLive": (self._server_live, messages.ServerLiveRequest),
                "ServerReady": (self._server_ready, messages.ServerReadyRequest),
                "ModelReady": (self._model_ready, messages.ModelReadyRequest),
                "ServerMetadata": (self._server_metadata, messages.ServerMetadataRequest),
                "ModelMetadata": (self._model_metadata, messages.ModelMetadataRequest),
            }.items()
        }

    def admit(self, call: Call) -> int:
        """A key of any model will do, as long as nobody knows which model is meant."""
        path = call.path
        if path in self._others:
            return min(self.limit, MOST_OF_OTHERS)
        if path != INFER:
            name = path[:100].decode("utf-8", "replace")
            raise Refused(codes.UNIMPLEMENTED, f"there is no method {name} here")
        try:
            allow_any(self._models, call.authorization, (Scope.PREDICT,))
        except AuthError as error:
            self._count(error.status, problem_of(error).kind)
            raise
        return self.limit

    def turned_away(self, call: Call, refused: Refused) -> None:
        if call.path == INFER:
            self._count(refused.status, kind_of(refused.status))

    def begin(self, call: Call, message: bytes) -> Answer:
        path = call.path
        if path == INFER:
            return self._infer(call, message)
        answer, kind = self._others[path]
        try:
            request = kind.FromString(message)
        except DecodeError as error:
            return failed(InputError(f"not a {kind.DESCRIPTOR.name}: {error}"))
        task = self._loop.create_task(_serialized(answer(request, call.authorization)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def refusal(self, error: BaseException) -> Refused:
        if isinstance(error, Refused):
            return error
        if not isinstance(error, HomeostatError):
            log.error("a call failed unexpectedly", exc_info=error)
        code = CODES.get(refusal_of(error).status, codes.INTERNAL)
        return Refused(code, problem_of(error).text())

    def _infer(self, call: Call, message: bytes) -> Later[bytes]:
        model: ServedModel | None = None
        try:
            request = _parsed(message)
            model = model_of(self._models, request.model_name)
            asked = _asked_of(call, model)
            call.admitted = True
            if len(message) > int(model.settings.serving.max_body):
                raise too_large(int(model.settings.serving.max_body))
            started = perf_counter()
            answer = _submitted(model, request, asked, len(message))
        except Exception as error:  # noqa: BLE001 - `refusal` tells it, and logs what is unexpected
            if model is not None:
                _refused(model, error)
            else:
                self._count(refusal_of(error).status, problem_of(error).kind)
            return failed(error)
        answer.add_done_callback(_measured(model, started))
        return answer

    async def _server_live(self, _request: Any, _key: str | None) -> Any:
        return messages.ServerLiveResponse(live=True)

    async def _server_ready(self, _request: Any, _key: str | None) -> Any:
        try:
            await self._ready()
        except HomeostatError:
            return messages.ServerReadyResponse(ready=False)
        return messages.ServerReadyResponse(ready=True)

    async def _model_ready(self, request: Any, _key: str | None) -> Any:
        model = model_of(self._models, request.name)
        try:
            named_version(model, request.version or None)
        except HomeostatError:
            return messages.ModelReadyResponse(ready=False)
        return messages.ModelReadyResponse(ready=True)

    async def _server_metadata(self, _request: Any, key: str | None) -> Any:
        self._check(key)
        return messages.ServerMetadataResponse(**about_server() | {"extensions": []})

    async def _model_metadata(self, request: Any, key: str | None) -> Any:
        self._check(key)
        model = model_of(self._models, request.name)
        about = about_version(model, named_version(model, request.version or None))
        parameters = about.pop("parameters")
        return messages.ModelMetadataResponse(
            **about, properties={name: _text(value) for name, value in parameters.items()}
        )


def _asked_of(call: Call, model: ServedModel) -> Asked:
    """Without keys each connection takes turns with the others: unlike one of HTTP/1, it may have
    a thousand calls open. Raises AuthError, Refused."""
    key = model.keys.allow(call.authorization, Scope.PREDICT)
    timeout = call.headers.get(b"grpc-timeout")
    if timeout is not None:
        seconds = seconds_of_grpc(timeout)
    else:
        seconds = model.settings.serving.deadline.total_seconds() or math.inf
    charge = model.keys.charge_for(key) if key else None
    return Asked(key, call.began + seconds, charge, call.caller)


def _submitted(model: ServedModel, request: Any, asked: Asked, size: int) -> Later[Any]:
    def read(version: Version) -> Rows:
        return read_rows(request, version.v2)

    name = request.model_version or None
    if size > LARGE and (takes_long(request) or named_version(model, name).v2.listed):
        return read_aside(model, read, asked, size, name)
    plain = model.plain
    if plain is not None and asked.charge is None and name is None:
        return plain.batcher.submit(read(plain), asked)
    return dispatch(model, charged(read, asked.charge), asked, name)


def _measured(model: ServedModel, started: float) -> Callable[[Later[Any]], None]:
    def done(answer: Later[Any]) -> None:
        error = answer.exception()
        if error is None:
            model.measuring.answered(perf_counter() - started)
        else:
            _refused(model, error)

    return done


def _refused(model: ServedModel, error: BaseException) -> None:
    model.measuring.refused(refusal_of(error).status, problem_of(error).kind)


async def _serialized(answer: Coroutine[Any, Any, Any]) -> bytes:
    data: bytes = (await answer).SerializeToString()
    return data


def _parsed(message: bytes) -> Any:
    try:
        return parse(message)
    except DecodeError as error:
        raise InputError(f"not an inference request: {error}") from None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
