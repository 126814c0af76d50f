"""POST labels, and the flush of what was logged."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from fastapi import FastAPI, Request

from homeostat.auth import Scope
from homeostat.errors import HomeostatError
from serving.doors.label_desk import LabelDesk
from serving.doors.naming import model_of, only_model
from serving.doors.peers import Peers
from serving.pages import descriptions
from serving.requests.body import check_length, read_body
from serving.requests.problem import problem_of
from serving.requests.unreadable import explained
from serving.versions.served_model import ServedModel


def add_labels(app: FastAPI, models: Mapping[str, ServedModel], peers: Peers) -> None:
    desks = {
        name: LabelDesk(model.journal.label, model.settings.model.task, lambda: datetime.now(UTC))
        for name, model in models.items()
    }

    async def store(model: ServedModel, request: Request) -> dict[str, int]:
        try:
            model.keys.allow(request.headers.get("authorization"), Scope.LABEL)
            limit = int(model.settings.serving.max_body)
            check_length(request.headers.raw, limit)
            body = await read_body(request.receive, limit)
            stored = await desks[model.name].take(body)
        except HomeostatError as error:
            told = explained(error, request.headers.raw)
            model.measuring.labels_refused(problem_of(told).kind)
            raise told from None
        model.measuring.labels(stored)
        return {"stored": stored}

    @app.post("/labels", **descriptions.LABELS)
    async def labels(request: Request) -> dict[str, int]:
        return await store(only_model(models, "labels"), request)

    @app.post("/models/{name}/labels", **descriptions.LABELS)
    async def labels_of(name: str, request: Request) -> dict[str, int]:
        return await store(model_of(models, name), request)

    @app.post(
        "/models/{name}/flush",
        tags=["labels"],
        summary="Commit everything logged so far to the journal's tables (admin)",
        responses=dict.fromkeys((401, 403, 404, 503), descriptions.PROBLEM),
    )
    async def flush(name: str, request: Request) -> Mapping[str, int]:
        model = model_of(models, name)
        model.keys.allow(request.headers.get("authorization"), Scope.ADMIN)
        return await peers.flush(name)
