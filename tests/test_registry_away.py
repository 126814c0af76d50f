"""When MLflow does not answer: said within seconds, and what is cached still comes."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from registry_fixtures import LoggedModels

from homeostat.errors import RegistryRefused, RegistryUnavailable, Unavailable
from homeostat.registry.connection import shown
from homeostat.registry.mlflow_registry import Registry
from homeostat.settings import Settings, load

FETCH = (sys.executable, "-m", "homeostat.registry", "fetch")


def project(folder: Path, uri: str) -> Settings:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "homeostat.toml").write_text(
        f'[model]\nname = "digits"\n[registry]\ntracking_uri = "{uri}"\n'
    )
    return load(folder, {})


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Somebody listens, and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


class Overloaded(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(503)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_refused_connection_is_said_at_once(tmp_path: Path, scheme: str) -> None:
    """Every question to a server or a database that is down raises what callers wait on."""
    registry = Registry(project(tmp_path, f"{scheme}://127.0.0.1:{closed_port()}"))
    for ask in (
        registry.prepare,
        registry.aliases,
        lambda: registry.find_model("run"),
        lambda: registry.fetch("1", feature_names=()),
        lambda: registry.our_run("1"),
    ):
        with pytest.raises(RegistryUnavailable, match="tracking_uri"):
            ask()


@pytest.mark.timeout(60)
def test_a_server_that_never_answers_is_not_waited_for(tmp_path: Path, silent_port: int) -> None:
    """A tracking server that hangs does not hang us: MLflow's own patience is minutes."""
    with pytest.raises(RegistryUnavailable, match="timed out"):
        Registry(project(tmp_path, f"http://127.0.0.1:{silent_port}")).aliases()


def test_an_overloaded_server_is_away(tmp_path: Path) -> None:
    """A gateway that says 503 for MLflow is MLflow away, not an error of ours."""
    server = HTTPServer(("127.0.0.1", 0), Overloaded)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(RegistryUnavailable, match="503"):
            Registry(project(tmp_path, f"http://127.0.0.1:{server.server_port}")).aliases()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Answering(BaseHTTPRequestHandler):
    """Healthy, and answers every question with the status and the code that its path names."""

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        _, status, code, rest = self.path.split("/", 3)
        body = b"OK" if rest == "health" else b"no"
        if rest != "health" and code != "plain":
            body = f'{{"error_code": "{code}", "message": "no"}}'.encode()
        self.send_response(200 if rest == "health" else int(status))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def answering() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "plain"),
        (403, "plain"),
        (403, "PERMISSION_DENIED"),
        (400, "INVALID_PARAMETER_VALUE"),
    ],
)
def test_a_refusal_is_not_waited_on(answering: str, tmp_path: Path, status: int, code: str) -> None:
    """A missing right or a wrong request stays so: it is told, with what to do."""
    with pytest.raises(RegistryRefused, match="MLFLOW_TRACKING_TOKEN") as raised:
        Registry(project(tmp_path, f"{answering}/{status}/{code}")).aliases()
    assert not isinstance(raised.value, Unavailable)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (503, "plain"),
        (503, "TEMPORARILY_UNAVAILABLE"),
        (500, "INTERNAL_ERROR"),
        (429, "REQUEST_LIMIT_EXCEEDED"),
    ],
)
def test_trouble_that_passes_is_waited_on(
    answering: str, tmp_path: Path, status: int, code: str
) -> None:
    """An overloaded or broken server behind a healthy front is MLflow away."""
    with pytest.raises(RegistryUnavailable):
        Registry(project(tmp_path, f"{answering}/{status}/{code}")).aliases()


def test_what_is_cached_needs_no_mlflow(logged_models: LoggedModels, tmp_path: Path) -> None:
    """A version that was fetched once is found again while MLflow is away; another one is not."""
    registry = Registry(logged_models.settings(tmp_path, model="digits"))
    logged = registry.find_model("run-digits")
    assert logged is not None
    version = registry.register(logged, "run-digits")
    ref = registry.fetch(version, feature_names=())

    away = Registry(project(tmp_path, f"http://127.0.0.1:{closed_port()}"))
    assert away.fetch(version, feature_names=()) == ref
    done = subprocess.run(
        [*FETCH, "--project", str(tmp_path), "--version", "99"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 75
    assert "did not do what was asked" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_password_in_the_address_is_not_shown() -> None:
    """Messages name the tracking server, never its password."""
    assert shown("postgresql://me:secret@db/mlflow") == "postgresql://me:…@db/mlflow"
    assert shown("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
