"""Our server's handler, and a constant answer, under Granian: over ASGI and over its own RSGI.

Granian imports an object by name; which of these are started is bench.http_stack's to say. The
project's folder comes by HOMEOSTAT_BENCH_PROJECT.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from bench.peers.constant import ANSWER, constant
from homeostat.metrics import Instruments
from homeostat.settings import load
from serving.doors.asgi import AsgiScope, Front
from serving.doors.peers import Alone
from serving.processes.assembly import make_front, make_models
from serving.requests.body import Receive, Send
from serving.versions.follower import Follower
from serving.versions.journal import journal_writer
from serving.versions.served_model import ServedModel

Door = tuple[ServedModel, Front]


def _open_door() -> tuple[Door, asyncio.Task[None]]:
    """The models of the project, started and followed in this process's event loop."""
    np.seterr(over="ignore")
    settings = load(Path(os.environ["HOMEOSTAT_BENCH_PROJECT"]), {})
    registry = CollectorRegistry()
    models = make_models(
        [settings], Instruments("server", registry), lambda project: journal_writer(project, {})
    )
    model = models[settings.model.name]
    model.journal.start()
    front = make_front(
        models,
        Alone(models, registry),
        host="127.0.0.1",
        draining=lambda: False,
        refused=model.measuring.refused,
    )
    follower = Follower(model, [model], asyncio.Lock())
    task = asyncio.get_event_loop().create_task(follower.follow())
    return (model, front), task


class OursByAsgi:
    def __init__(self) -> None:
        self._front: Front | None = None

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if self._front is None:
            (_, self._front), self._task = _open_door()
        await self._front(scope, receive, send)


class OursByRsgi:
    """The door of serving.doors.predict_door in Granian's terms."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        (self._model, _), self._task = _open_door()
        self._answered = self._model.measuring.answered

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        body = await protocol()
        version = self._model.current
        if version is None:
            protocol.response_empty(503, [])
            return
        started = asyncio.get_running_loop().time()
        answer = await version.batcher.submit(version.reader.read(body))
        self._answered(asyncio.get_running_loop().time() - started)
        protocol.response_bytes(200, [("content-type", "application/json")], answer)


class ConstantByRsgi:
    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        await protocol()
        protocol.response_bytes(200, [("content-type", "application/json")], ANSWER)


ours_by_asgi = OursByAsgi()
ours_by_rsgi = OursByRsgi()
constant_by_asgi = constant
constant_by_rsgi = ConstantByRsgi()
