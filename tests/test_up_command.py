"""`homeostat up` tells what is true of the processes it starts, and starts none in vain."""

from __future__ import annotations

import contextlib
import socket
from datetime import UTC, datetime
from pathlib import Path

import project_kit as kit
import pytest
from held_version_kit import add_held, let_it_load
from hold_kit import hold, let_begin
from serving_kit import MODEL, make_project

from homeostat.records import Rollout
from homeostat.state import rollouts
from homeostat.state.store import open_state

KEYS = ("serving.port", "serving.grpc_port", "console.port", "registry.ui_port")


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_ports_that_are_taken_are_told_before_anything_starts(tmp_path: Path, port: int) -> None:
    """One line each, with the key and the variable that choose another: two by others, and one that
    the project itself gives twice."""
    project = make_project(tmp_path).project
    variables = [f"HOMEOSTAT_{key.replace('.', '_')}".upper() for key in KEYS]
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        ports = [*(each.getsockname()[1] for each in others), port, port]
        environ = kit.environ(**dict(zip(variables, map(str, ports), strict=True)))
        with kit.running(project, "up", environ) as up:
            assert up.wait(60) == 1
    lines = (project / "up.log").read_text().splitlines()
    wrong = [each for each in zip(KEYS, variables, ports, strict=True) if each[0] != "console.port"]
    for line, (key, variable, number) in zip(lines, wrong, strict=True):
        assert line.startswith(f"{key}: cannot listen on 127.0.0.1:{number} (")
        assert line.endswith(variable)
    assert not list(project.glob(".homeostat/logs/*"))


def test_a_version_is_said_to_serve_once_it_does(tmp_path: Path, port: int) -> None:
    """Not when it is promoted; and this is told without a status page, too: its port was free when
    the others were tried, and is taken before the loop has it."""
    settings = make_project(
        tmp_path,
        f'[registry]\ntracking_uri = "http://127.0.0.1:9"\n[console]\nport = {port}\n',
    )
    held, now = add_held(settings, 1), datetime.now(UTC)
    state = open_state(settings.state_url)
    with state.begin() as tx:
        rollouts.add_version(tx, MODEL, held, None, now)
        rollouts.write(tx, Rollout(model=MODEL, epoch=1, champion=held, created_at=now))
    state.close()
    log = tmp_path / "up.log"
    loads, serves = "Version 1 is promoted; the server loads it.", "Version 1 serves."

    def said(text: str) -> bool:
        return text in " ".join(log.read_text().split())

    def served() -> bool:
        let_it_load(settings, held)
        return said(serves)

    environ = kit.environ(
        HOMEOSTAT_SERVING_PORT="0",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
        **hold(tmp_path / "hold", " loop$"),
    )
    with kit.running(tmp_path, "up", environ) as up:
        kit.until("the start", lambda: said("Starting"))
        with socket.create_server(("127.0.0.1", port)):
            let_begin(tmp_path / "hold")
            kit.until("the load", lambda: said(loads) and said("/predict"))
            assert not said("status page")
            assert not said(serves)
            kit.until("the version", served)
        up.terminate()
        assert up.wait(60) == 0
