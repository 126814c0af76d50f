"""Everything but predictions: labels, health, versions, metrics, and the pages that describe it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from homeostat.auth import Scope
from homeostat.errors import AuthError, HomeostatError
from serving.counting.scraping import text_of
from serving.doors.inference_pages import PREFIX, add_pages
from serving.doors.invocations_door import SCORING, scoring_refusal
from serving.doors.label_pages import add_labels
from serving.doors.mlflow_pages import add_scoring_pages
from serving.doors.naming import NoSuchModel, model_of, only_model
from serving.doors.peers import Peers
from serving.doors.rest_door import error_body
from serving.pages import descriptions
from serving.pages.docs_page import HEADERS, docs_page
from serving.pages.fast_paths import fast_paths
from serving.pages.openapi import without_validation
from serving.requests.body import Gone
from serving.requests.problem import UNEXPECTED, Problem, Refused, problem_of
from serving.versions.served_model import ServedModel, Version

log = logging.getLogger(__name__)


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        return without_validation(super().openapi())


def make_app(
    models: Mapping[str, ServedModel],
    peers: Peers,
    *,
    open_to_others: bool,
    ready: Callable[[], Awaitable[None]],
    refused: Callable[[int, str], None],
) -> FastAPI:
    """`open_to_others`: the server can be reached from beyond loopback, so reading needs a key.
    `ready` raises NotReady. `refused` is told what is refused since no model has its name."""
    app = _App(
        title="Homeostat model server",
        description=descriptions.SERVER,
        openapi_tags=descriptions.TAGS,
        docs_url=None,  # it would load its parts from elsewhere
        redoc_url=None,
    )
    _add_docs(app)
    _add_problems(app, refused)
    _add_health(app, models, ready)

    def check(request: Request) -> None:
        if open_to_others:
            allow_any(models, request.headers.get("authorization"))

    _add_reading(app, models, peers, check)
    add_pages(app, models, check=check, ready=ready)
    add_scoring_pages(app, ready)
    add_labels(app, models, peers)
    _add_predictions(app, models)
    return app


def _add_docs(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page(app.openapi()), headers=HEADERS)


def _add_problems(app: FastAPI, refused: Callable[[int, str], None]) -> None:
    @app.exception_handler(HomeostatError)
    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, HomeostatError)
        problem = problem_of(error)
        if isinstance(error, NoSuchModel) and request.method == "POST":
            refused(problem.status, problem.kind)
        return _response(request, problem)

    @app.exception_handler(HTTPException)
    async def theirs(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        problem = problem_of(Refused(_told(request, error), status=error.status_code))
        return _response(request, problem, error.headers)

    @app.exception_handler(Gone)
    async def gone(_request: Request, _error: Exception) -> Response:
        return Response(status_code=400)  # nobody reads it

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: Exception) -> Response:
        return _response(request, Problem(status=422, kind="invalid-input", detail=str(error)))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, _error: Exception) -> Response:
        return _response(request, UNEXPECTED)


def _told(request: Request, error: HTTPException) -> str:
    path, allowed = request.url.path[:100], (error.headers or {}).get("Allow")
    match error.status_code:
        case 404:
            return f"there is no path {path}; /docs shows those there are"
        case 405 if allowed is not None:
            return f"{request.method} is not what {path} takes; send {allowed}"
    return str(error.detail)


def _add_health(
    app: FastAPI, models: Mapping[str, ServedModel], ready: Callable[[], Awaitable[None]]
) -> None:
    @app.get("/health/live", tags=["health"], summary="The process answers")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get(
        "/health/ready",
        tags=["health"],
        summary="Every model has a version that serves, in every worker",
        responses={503: descriptions.PROBLEM},
    )
    async def is_ready() -> dict[str, Any]:
        await ready()
        versions = {name: model.ready().ref.version for name, model in models.items()}
        return {"status": "ready", "models": versions}


def _add_reading(
    app: FastAPI,
    models: Mapping[str, ServedModel],
    peers: Peers,
    check: Callable[[Request], None],
) -> None:
    @app.get("/", tags=["reading"], summary="Where things are")
    async def links() -> dict[str, Any]:
        return {
            "about": "Homeostat model server",
            "documentation": "/docs",
            "models": "/models",
            "metrics": "/metrics",
            "ready": "/health/ready",
            "predict": [f"/models/{name}/predict" for name in models],
        }

    @app.get("/models", tags=["reading"], summary="The models and their versions")
    async def list_models(request: Request) -> dict[str, Any]:
        check(request)
        return {"models": [_about(model) for model in models.values()]}

    @app.get("/metrics", tags=["reading"], summary="Metrics for Prometheus, of all workers")
    async def metrics(request: Request) -> Response:
        check(request)
        return Response(text_of(await peers.snapshot()), media_type=CONTENT_TYPE_LATEST)


def _add_predictions(app: FastAPI, models: Mapping[str, ServedModel]) -> None:
    """Documented here, answered in asgi.py: what still arrives here names no model we have."""

    @app.post("/predict", **descriptions.PREDICT)
    async def predict() -> None:
        only_model(models, "predict")

    @app.post("/models/{name}/predict", **descriptions.PREDICT)
    async def predict_with(name: str) -> None:
        model_of(models, name)

    @app.post("/models/{name}/versions/{version}/predict", **descriptions.PREDICT)
    async def predict_by(name: str, version: str) -> None:
        model_of(models, name).named(version)

    @app.post("/invocations", **descriptions.INVOCATIONS)
    async def invocations() -> None:
        only_model(models, "invocations")

    @app.post("/models/{name}/invocations", **descriptions.INVOCATIONS)
    async def invocations_with(name: str) -> None:
        model_of(models, name)


def allow_any(
    models: Mapping[str, ServedModel],
    authorization: str | None,
    scopes: Collection[Scope] = tuple(Scope),
) -> None:
    """A key of any model will do, for any of these."""
    failure: AuthError | None = None
    for model in models.values():
        for scope in scopes:
            try:
                model.keys.allow(authorization, scope)
            except AuthError as error:
                failure = error
            else:
                return
    if failure is not None:
        raise failure


def _about(model: ServedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "task": model.settings.model.task,
        "epoch": model.epoch,
        "problem": model.problem,
        "queued_rows": model.queued_rows,
        "serving": _about_version(model.current),
        "previous": _about_version(model.previous),
        "trial": _about_trial(model),
    }


def _about_trial(model: ServedModel) -> dict[str, Any] | None:
    trial = model.rollout.trial if model.rollout else None
    if trial is None:
        return None
    return {
        "kind": trial.kind,
        "share": trial.share,
        "problem": model.trial_problem,
        "version": trial.version.version,
        "loaded": _about_version(model.trial),
    }


def _about_version(version: Version | None) -> dict[str, Any] | None:
    if version is None:
        return None
    spec = version.model.spec
    return {
        "version": version.ref.version,
        "digest": version.ref.digest,
        "runtime": spec.runtime,
        "flavor": spec.flavor,
        "embedding": spec.embedding,
        "classes": list(spec.classes),
        "since": version.since.isoformat(),
        "fast_paths": fast_paths(version.model, version.loop_rows),
        "image": msgspec.to_builtins(spec.image),
        "load_seconds": round(version.load_seconds, 3),
        "breaker": version.health.phase,
        "signature": {
            "tensor_shape": spec.tensor_shape,
            "tensor_dtype": spec.tensor_dtype if spec.tensor_shape is not None else None,
            "features": msgspec.to_builtins(spec.features),
        },
    }


def _response(
    request: Request, problem: Problem, headers: Mapping[str, str] | None = None
) -> Response:
    told, body = problem.headers() | dict(headers or {}), problem.body()
    if request.url.path.startswith(PREFIX):  # clients of another protocol
        told, body = told | {"content-type": "application/json"}, error_body(problem)
    elif request.url.path.endswith(SCORING):
        _, scoring, body = scoring_refusal(problem, problem.status)
        told |= scoring
    return Response(body, problem.status, headers=told)
