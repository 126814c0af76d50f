"""inference.GRPCInferenceService, on the HTTP server's event loop and before the same queues."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any

import grpc
import msgspec
from google.protobuf.message import DecodeError

from homeostat.auth import Scope
from homeostat.errors import HomeostatError, InputError, NotReady
from serving.asked import Asked
from serving.body import too_large
from serving.dispatch import dispatch
from serving.limits import charged
from serving.open_inference import open_inference_pb2 as messages
from serving.open_inference.grpc_messages import parse, read_rows
from serving.open_inference.pages import (
    about_server,
    about_version,
    model_of,
)
from serving.open_inference.rest_door import named_version, refusal_of
from serving.problem import problem_of
from serving.served_model import ServedModel

log = logging.getLogger(__name__)

NAME = "inference.GRPCInferenceService"
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    503: grpc.StatusCode.UNAVAILABLE,
}

Call = Callable[[Any, Any], Awaitable[Any]]


class Service:
    """The protocol's calls. `check` raises AuthError where reading needs a key."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        check: Callable[[str | None], None],
        ready: Callable[[], Awaitable[None]],
    ) -> None:
        self._models = models
        self._check = check
        self._check_ready = ready
        self.leaving = False  # new calls are told so

    def handler(self) -> Any:
        calls: dict[str, tuple[Call, Any]] = {
            "ServerLive": (self.server_live, messages.ServerLiveRequest),
            "ServerReady": (self.server_ready, messages.ServerReadyRequest),
            "ModelReady": (self.model_ready, messages.ModelReadyRequest),
            "ServerMetadata": (self.server_metadata, messages.ServerMetadataRequest),
            "ModelMetadata": (self.model_metadata, messages.ModelMetadataRequest),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                call,
                request_deserializer=kind.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
            for name, (call, kind) in calls.items()
        }
        # bytes in, bytes out: what is no message is the caller's error, and not the server's
        handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(self.model_infer)
        return grpc.method_handlers_generic_handler(NAME, handlers)

    async def server_live(self, _request: Any, _context: Any) -> Any:
        return messages.ServerLiveResponse(live=True)

    async def server_ready(self, _request: Any, _context: Any) -> Any:
        try:
            await self._check_ready()
        except HomeostatError:
            return messages.ServerReadyResponse(ready=False)
        return messages.ServerReadyResponse(ready=True)

    async def model_ready(self, request: Any, context: Any) -> Any:
        try:
            model = model_of(self._models, request.name)
        except HomeostatError as error:
            return await _abort(context, error)
        try:
            named_version(model, request.version or None)
        except HomeostatError:
            return messages.ModelReadyResponse(ready=False)
        return messages.ModelReadyResponse(ready=True)

    async def server_metadata(self, _request: Any, context: Any) -> Any:
        try:
            self._check(_authorization(context))
        except HomeostatError as error:
            return await _abort(context, error)
        return messages.ServerMetadataResponse(**about_server() | {"extensions": []})

    async def model_metadata(self, request: Any, context: Any) -> Any:
        try:
            self._check(_authorization(context))
            model = model_of(self._models, request.name)
            about = about_version(model, named_version(model, request.version or None))
        except HomeostatError as error:
            return await _abort(context, error)
        parameters = about.pop("parameters")
        return messages.ModelMetadataResponse(
            **about, properties={name: _text(value) for name, value in parameters.items()}
        )

    async def model_infer(self, body: bytes, context: Any) -> bytes:
        model: ServedModel | None = None
        try:
            if self.leaving:
                raise NotReady("the server is going down")
            request = _parsed(body)
            model = model_of(self._models, request.model_name)
            caller = model.keys.allow(_authorization(context), Scope.PREDICT)
            charge = model.keys.charge_for(caller)
            _check_size(body, model)
            started = perf_counter()
            answer = await dispatch(
                model,
                charged(lambda version: read_rows(request, version.v2), charge),
                Asked(caller or context.peer(), _until(context)),
                request.model_version or None,
            )
        except HomeostatError as error:
            await _abort(context, error, model)
            raise
        except Exception as error:
            log.exception("a prediction failed unexpectedly")
            await _abort(context, error, model)
            raise
        model.measuring.answered(perf_counter() - started)
        assert isinstance(answer, bytes)
        return answer


async def _abort(context: Any, error: BaseException, model: ServedModel | None = None) -> Any:
    status = refusal_of(error).status
    if model is not None:
        model.measuring.refused(status, problem_of(error).kind)
    code = CODES.get(status, grpc.StatusCode.INTERNAL)
    await context.abort(code, problem_of(error).text())


def _until(context: Any) -> float:
    """Its caller's deadline, by the event loop's clock."""
    left: float | None = context.time_remaining()
    return math.inf if left is None else asyncio.get_running_loop().time() + left


def _parsed(body: bytes) -> Any:
    try:
        return parse(body)
    except DecodeError as error:
        raise InputError(f"not an inference request: {error}") from None


def _check_size(body: bytes, model: ServedModel) -> None:
    limit = int(model.settings.serving.max_body)
    if len(body) > limit:
        raise too_large(limit)


def _authorization(context: Any) -> str | None:
    for name, value in context.invocation_metadata() or ():
        if name == "authorization" and isinstance(value, str):
            return value
    return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
