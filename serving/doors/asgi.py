"""What is asked by ASGI: predictions by their doors, every other path by the app behind.

Most predictions never come here: see connection.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from time import perf_counter
from typing import Any

from homeostat.errors import HomeostatError
from serving.doors.invocations_door import InvocationsDoor
from serving.doors.predict_door import PredictDoor
from serving.doors.rest_door import InferDoor
from serving.requests.body import Gone, Receive, Send, read_body
from serving.requests.door import Door
from serving.requests.forms import parts_of
from serving.requests.unreadable import explained
from serving.tracing.door import TracedDoor
from serving.tracing.tracing import Tracing
from serving.versions.served_model import ServedModel

log = logging.getLogger(__name__)

AsgiScope = MutableMapping[str, Any]
AsgiApp = Callable[[AsgiScope, Receive, Send], Awaitable[None]]


def doors_of(models: Mapping[str, ServedModel]) -> dict[str, Door]:
    """By path."""
    doors: dict[str, Door] = {}
    for name, model in models.items():
        doors[f"/models/{name}/predict"] = PredictDoor(model)
        doors[f"/models/{name}/invocations"] = InvocationsDoor(model)
        doors[f"/v2/models/{name}/infer"] = InferDoor(model)
    if len(models) == 1:
        for verb in ("predict", "invocations"):
            doors[f"/{verb}"] = doors[f"/models/{name}/{verb}"]
    return doors


def door_of_version(path: str, models: Mapping[str, ServedModel]) -> Door | None:
    """/models/NAME/versions/VERSION/predict, and the protocol's: versions come and go."""
    match path.split("/"):
        case ["", "models", name, "versions", version, "predict"] if name in models:
            return PredictDoor(models[name], version)
        case ["", "v2", "models", name, "versions", version, "infer"] if name in models:
            return InferDoor(models[name], version)
    return None


class Front:
    """What the HTTP server calls."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        others: AsgiApp,
        tracing: Tracing | None = None,
    ) -> None:
        self._models = models
        self._others = others
        self._tracing = tracing
        self.doors = {path: self._traced(door, path) for path, door in doors_of(models).items()}

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        door = self.doors.get(path) or self._door_of_version(path)
        if door is not None and scope.get("method") == "POST":
            await _predict(door, scope, receive, send)
        else:
            await self._others(scope, receive, send)

    def _door_of_version(self, path: str) -> Door | None:
        door = door_of_version(path, self._models)
        return None if door is None else self._traced(door, path)

    def _traced(self, door: Door, path: str) -> Door:
        return door if self._tracing is None else TracedDoor(door, path, self._tracing)


async def _predict(door: Door, scope: AsgiScope, receive: Receive, send: Send) -> None:
    try:
        told = door.admit(scope["headers"])
        body = await read_body(receive, door.limit)
        started = perf_counter()
        answer = await door.answer(body, told)
    except Gone:
        return
    except HomeostatError as error:
        await _refuse(send, explained(error, scope["headers"]), door)
    except Exception as error:
        log.exception("a prediction failed unexpectedly")
        await _refuse(send, error, door)
    else:
        door.answered(started)
        body, headers = parts_of(answer)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _refuse(send: Send, error: BaseException, door: Door) -> None:
    status, headers, body = door.refuse(error)
    headers = {**headers, "content-length": str(len(body))}
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
