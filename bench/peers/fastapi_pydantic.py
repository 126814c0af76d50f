"""What a tutorial shows: a pydantic body, and the model called in the handler.

With uvloop, httptools and no access log, which a tutorial leaves out; it logs no prediction.
"""

from __future__ import annotations

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from bench.peers import network


class Request(BaseModel):
    rows: list[list[float]]


class Answer(BaseModel):
    predictions: list[int]
    probabilities: list[list[float]]


def make_app(model: torch.nn.Module) -> FastAPI:
    app = FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> Answer:
        with torch.inference_mode():
            probabilities = torch.softmax(model(torch.tensor(request.rows)), 1)
        return Answer(
            predictions=probabilities.argmax(1).tolist(), probabilities=probabilities.tolist()
        )

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
