"""GET /v2/…: health and metadata, from the versions in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from fastapi import FastAPI, Request

import homeostat
from homeostat.records import ModelSpec
from serving.doors.naming import model_of
from serving.open_inference.signature import (
    Described,
    inputs_of,
    optional_inputs_of,
    outputs_of,
)
from serving.pages import descriptions
from serving.pages.fast_paths import fast_paths
from serving.versions.reading import named_version
from serving.versions.served_model import ServedModel, Version

PREFIX = "/v2/"
NAME = "homeostat"
EXTENSIONS = ["binary_tensor_data"]
_TAGS: list[Any] = ["open inference protocol"]


def add_pages(
    app: FastAPI,
    models: Mapping[str, ServedModel],
    *,
    check: Callable[[Request], None],
    ready: Callable[[], Awaitable[None]],
) -> None:
    """`check` raises AuthError where reading needs a key, `ready` NotReady."""

    @app.get("/v2", tags=_TAGS, summary="The server's name, release and extensions")
    async def server(request: Request) -> dict[str, Any]:
        check(request)
        return about_server()

    @app.get("/v2/health/live", tags=_TAGS, summary="The process answers")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get(
        "/v2/health/ready",
        tags=_TAGS,
        summary="Every model has a version that serves",
        responses={503: descriptions.ERROR},
    )
    async def is_ready() -> dict[str, bool]:
        await ready()
        return {"ready": True}

    for path, what in (("", "The version that serves"), ("/versions/{version}", "A version")):
        _add_model(app, models, path, what, check)


def _add_model(
    app: FastAPI,
    models: Mapping[str, ServedModel],
    path: str,
    what: str,
    check: Callable[[Request], None],
) -> None:
    base = f"/v2/models/{{name}}{path}"
    answers: dict[int | str, dict[str, Any]] = dict.fromkeys((404, 503), descriptions.ERROR)

    @app.get(base, tags=_TAGS, summary=f"{what}: inputs and outputs", responses=answers)
    async def metadata(request: Request, name: str) -> dict[str, Any]:
        check(request)
        model = model_of(models, name)
        return about_version(model, named_version(model, request.path_params.get("version")))

    @app.get(f"{base}/ready", tags=_TAGS, summary=f"{what} is in memory", responses=answers)
    async def ready(request: Request, name: str) -> dict[str, Any]:
        named_version(model_of(models, name), request.path_params.get("version"))
        return {"name": name, "ready": True}

    @app.post(f"{base}/infer", **descriptions.INFER)
    async def infer(request: Request, name: str) -> None:  # what has a door never comes here
        named_version(model_of(models, name), request.path_params.get("version"))


def about_server() -> dict[str, Any]:
    return {"name": NAME, "version": homeostat.__version__, "extensions": EXTENSIONS}


def about_version(model: ServedModel, version: Version) -> dict[str, Any]:
    spec = version.model.spec
    return {
        "name": model.name,
        "versions": versions_of(model),
        "platform": platform_of(spec),
        "inputs": [_shown(each) for each in inputs_of(spec)],
        "outputs": [_shown(each) for each in outputs_of(spec)],
        "parameters": parameters_of(version),
    }


def versions_of(model: ServedModel) -> list[str]:
    """Those in memory, the one that serves last."""
    there = (model.previous, model.trial, model.current)
    return [version.ref.version for version in there if version is not None]


def platform_of(spec: ModelSpec) -> str:
    return f"{spec.flavor or spec.runtime}_homeostat"


def parameters_of(version: Version) -> dict[str, Any]:
    spec = version.model.spec
    return {
        "version": version.ref.version,
        "task": spec.task.value,
        "classes": list(spec.classes),
        "optional_inputs": optional_inputs_of(spec),
        "fast_paths": fast_paths(version.model, version.loop_rows),
        "image": msgspec.to_builtins(spec.image),
    }


def _shown(described: Described) -> dict[str, Any]:
    return {
        "name": described.name,
        "datatype": described.datatype,
        "shape": list(described.shape),
    }
