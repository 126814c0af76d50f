"""The best one can do within a FastAPI route: raw body, msgspec, micro-batches. Logs nothing."""

from __future__ import annotations

import asyncio
import sys

import msgspec
import torch
import uvicorn
from fastapi import FastAPI, Request, Response

from bench.peers import network


class Body(msgspec.Struct):
    rows: list[list[float]]


decode = msgspec.json.Decoder(Body).decode
encode = msgspec.json.Encoder().encode


class Batches:
    """What arrives within one turn of the event loop is one tensor."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._waiting: list[tuple[list[list[float]], asyncio.Future[bytes]]] = []

    def submit(self, rows: list[list[float]]) -> asyncio.Future[bytes]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._answer)
        self._waiting.append((rows, future))
        return future

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        with torch.inference_mode():
            logits = self._model(torch.tensor([row for rows, _ in waiting for row in rows]))
            probabilities = torch.softmax(logits, 1)
        chosen, values, at = probabilities.argmax(1).tolist(), probabilities.tolist(), 0
        for rows, future in waiting:
            end = at + len(rows)
            answer = {"predictions": chosen[at:end], "probabilities": values[at:end]}
            if not future.done():
                future.set_result(encode(answer))
            at = end


def make_app(model: torch.nn.Module) -> FastAPI:
    app, batches = FastAPI(), Batches(model)

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        rows = decode(await request.body()).rows
        return Response(await batches.submit(rows), media_type="application/json")

    return app


if __name__ == "__main__":
    uvicorn.run(
        make_app(network.load(sys.argv[1])),
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
