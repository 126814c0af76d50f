"""GET /ping, /health and /version, as `mlflow models serve` has them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import version as version_of
from typing import Any

from fastapi import FastAPI, Response

from serving.pages import descriptions

_TAGS: list[Any] = ["mlflow scoring"]


def add_scoring_pages(app: FastAPI, ready: Callable[[], Awaitable[None]]) -> None:
    """`ready` raises NotReady."""

    async def ping() -> Response:
        await ready()
        return Response("\n", media_type="application/json")

    for path in ("/ping", "/health"):
        app.get(
            path,
            tags=_TAGS,
            summary="Every model has a version that serves",
            responses={503: descriptions.PROBLEM},
        )(ping)

    @app.get("/version", tags=_TAGS, summary="The release of MLflow whose protocol it is")
    async def version() -> Response:
        return Response(version_of("mlflow"), media_type="application/json")
