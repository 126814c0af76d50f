"""The hot path: one ASGI callable for predictions; every other path goes to the app behind it.

No router, no middleware and no validation framework stand between the socket and the model: each
of them costs more than the model does.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from time import perf_counter
from typing import Any

from homeostat.auth import Scope
from homeostat.errors import HomeostatError
from serving.body import Gone, Receive, Send, authorization, check_length, read_body
from serving.problem import Problem, problem_of
from serving.served_model import ServedModel

log = logging.getLogger(__name__)

AsgiScope = MutableMapping[str, Any]
AsgiApp = Callable[[AsgiScope, Receive, Send], Awaitable[None]]


class Front:
    """What the HTTP server calls."""

    def __init__(self, models: Mapping[str, ServedModel], others: AsgiApp) -> None:
        self._others = others
        self._doors = {f"/models/{name}/predict": predict_door(m) for name, m in models.items()}
        if len(models) == 1:
            self._doors["/predict"] = next(iter(self._doors.values()))

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        door = self._doors.get(scope.get("path", ""))
        if door is not None and scope.get("method") == "POST":
            await door(scope, receive, send)
        else:
            await self._others(scope, receive, send)


def predict_door(model: ServedModel) -> AsgiApp:
    """POST predict for one model."""
    keys, limit = model.keys, int(model.settings.serving.max_body)
    answered, refused = model.measuring.answered, model.measuring.refused

    async def predict(scope: AsgiScope, receive: Receive, send: Send) -> None:
        try:
            headers = scope["headers"]
            if keys:
                keys.allow(authorization(headers), Scope.PREDICT)
            check_length(headers, limit)
            body = await read_body(receive, limit)
            started = perf_counter()
            version = model.current or model.ready()
            answer = await version.batcher.submit(version.reader.read(body))
        except HomeostatError as error:
            await _refuse(send, problem_of(error), refused)
        except Gone:
            return
        except Exception:
            log.exception("a request for %s failed unexpectedly", model.name)
            problem = Problem(
                status=500, kind="internal", detail="unexpected; see the server's log"
            )
            await _refuse(send, problem, refused)
        else:
            answered(perf_counter() - started)
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [
                        (b"content-type", b"application/json"),
                        (b"content-length", b"%d" % len(answer)),
                    ],
                }
            )
            await send({"type": "http.response.body", "body": answer})

    return predict


async def _refuse(send: Send, problem: Problem, refused: Callable[[int], None]) -> None:
    refused(problem.status)
    body = problem.body()
    headers = problem.headers() | {"content-length": str(len(body))}
    await send(
        {
            "type": "http.response.start",
            "status": problem.status,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
