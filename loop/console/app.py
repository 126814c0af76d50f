"""The loop's web pages: how things stand, the reports behind it, metrics, health."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import msgspec
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from jinja2 import Environment, FileSystemLoader, select_autoescape
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

import homeostat
from homeostat.auth import Scope
from homeostat.errors import AuthError, Unavailable
from homeostat.key_watch import KeyWatch
from loop.context import Context
from loop.status import gather, next_step
from serving.pages.docs_page import HEADERS, docs_page

REPORT_FILES = ("report.html", "snapshot.json")


def make_app(context: Context, watch: KeyWatch) -> FastAPI:
    app = FastAPI(title="Homeostat", version=homeostat.__version__, docs_url=None, redoc_url=None)

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return HTMLResponse(docs_page(app.openapi()), headers=HEADERS)

    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(),
    )

    def allow(request: Request) -> None:
        try:
            watch.look()
            watch.keys.allow(_bearer(request.headers.get("authorization")), Scope.ADMIN)
        except AuthError as error:
            ask = {"www-authenticate": 'Basic realm="any name, and a key of scope admin"'}
            raise HTTPException(error.status, str(error), headers=ask) from None

    _add_reports(app, context.settings.reports_path, allow)

    @app.exception_handler(Unavailable)
    def away(request: Request, error: Unavailable) -> Response:
        return Response(str(error), 503, media_type="text/plain", headers={"retry-after": "5"})

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page(request: Request) -> str:
        allow(request)
        status = gather(context.settings, context.state, context.clock())
        template = pages.get_template("status.html")
        return template.render(s=status, next_step=next_step(status))

    @app.get("/api/status")
    def api_status(request: Request) -> Response:
        """Everything the status page shows, as JSON."""
        allow(request)
        status = gather(context.settings, context.state, context.clock())
        return Response(msgspec.json.encode(status), media_type="application/json")

    @app.get("/metrics")
    def metrics(request: Request) -> Response:
        """For Prometheus."""
        allow(request)
        return Response(
            generate_latest(context.instruments.registry), media_type=CONTENT_TYPE_LATEST
        )

    @app.get("/health/live")
    def live() -> dict[str, str]:
        return {"status": "live"}

    return app


def _bearer(authorization: str | None) -> str | None:
    """Browsers ask for a name and a password: the password is the key."""
    kind, _, credentials = (authorization or "").partition(" ")
    if kind.lower() != "basic":
        return authorization
    try:
        name_and_key = base64.b64decode(credentials, validate=True).decode()
    except ValueError:
        return None
    return f"Bearer {name_and_key.partition(':')[2]}"


def _add_reports(app: FastAPI, folder: Path, allow: Callable[[Request], None]) -> None:
    @app.get("/reports/{check_id}/{file}")
    def report(request: Request, check_id: str, file: str) -> FileResponse:
        """The Evidently report of a check: report.html or snapshot.json."""
        allow(request)
        path = folder / check_id / file
        if file not in REPORT_FILES or not check_id.replace("-", "").isalnum():
            raise HTTPException(404, f"a report has the files {', '.join(REPORT_FILES)}")
        if not path.is_file():
            raise HTTPException(404, "no such report; older ones are removed, see keep_reports")
        # Evidently writes categories into the page as they came: it may not act in our name.
        return FileResponse(path, headers={"content-security-policy": "sandbox allow-scripts"})
