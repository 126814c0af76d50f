"""To whom a server is open: to those without a key where that is meant, and to more than a few."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from serving_kit import PATIENCE, Server, add_version, make_project, publish, running

from homeostat.settings import Settings

ROW = [1.0, 2.0, 3.0, 4.0]


@pytest.fixture
def project(tmp_path: Path) -> Settings:
    project = make_project(tmp_path)
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    return project


def test_an_open_port_has_to_be_meant(project: Settings) -> None:
    """Without keys a server of several processes listens beyond loopback where the settings say
    so, and each of them warns of it."""
    environ = {
        "HOMEOSTAT_SERVING_HOST": "0.0.0.0",
        "HOMEOSTAT_SERVING_OPEN_WITHOUT_KEYS": "true",
        "HOMEOSTAT_SERVING_WORKERS": "2",
    }
    with running(project.project, environ=environ) as server:
        assert server.predict([ROW]).status_code == 200
        assert server.http.get("/metrics").status_code == 200
        assert server.log.read_text().count("anybody who reaches 0.0.0.0 may ask") == 3
        assert server.stop() == 0


def test_the_usual_limit_of_open_files_is_not_the_servers(project: Settings) -> None:
    """It takes what the system allows: more connections than the limit it was started with stay
    open, and a further one is answered."""
    with ExitStack() as stack:
        server = _started_with(256, project, stack)
        port = int(server.url.rsplit(":", 1)[1])
        held = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(500)
        ]
        for connection in held:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: us\r\n\r\n")
        for connection in held:
            connection.settimeout(30)
            assert connection.recv(12) == b"HTTP/1.1 200"
        with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
            assert http.post("/predict", json={"rows": [ROW]}).status_code == 200
            metrics = http.get("/metrics").text
        assert "\nhomeostat_connections 50" in metrics
        assert server.stop() == 0


def test_a_low_limit_of_open_files_is_told() -> None:
    """Where the system allows no more, the log says how many it is."""
    program = (
        "import resource\n"
        "from serving.processes.logs import configure_logging\n"
        "from serving.processes.open_files import allow_all_files\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 400))\n"
        "configure_logging()\nallow_all_files()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "(400, 400)"
    assert "at most 400 files may be open" in done.stderr


def _started_with(soft: int, project: Settings, stack: ExitStack) -> Server:
    """A child has the limits of whoever starts it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        return stack.enter_context(running(project.project))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
