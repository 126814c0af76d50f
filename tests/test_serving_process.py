"""The server's process: its keys, its end, its models side by side, and what it never imports."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from serving_kit import (
    FEATURES,
    MODEL,
    PATIENCE,
    Network,
    Server,
    add_version,
    make_project,
    publish,
    running,
)

from homeostat.auth import Scope, add_key, new_key
from homeostat.client import Client
from homeostat.errors import AuthError, Unavailable
from homeostat.journal.reader import Journal
from homeostat.records import Task
from homeostat.settings import Settings
from serving.processes.slot import Slot

ROW = [1.0, 2.0, 3.0, 4.0]
SLOW = ("mlflow", "evidently", "pandas", "sqlalchemy", "apscheduler", "sklearn", "scipy")


@pytest.fixture(scope="module")
def two_projects(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Settings]:
    """One open to whoever is on this machine, one with keys and with fsync before each answer."""
    folder = tmp_path_factory.mktemp("serving")
    plain = make_project(folder / "plain")
    guarded = make_project(
        folder / "guarded",
        '[journal]\ndurability = "sync"\n[serving]\nmax_batch_rows = 8\n',
        model="guarded",
    )
    publish(plain, add_version(plain, 1), epoch=1)
    publish(guarded, add_version(guarded, 2), epoch=1)
    return plain, guarded


@pytest.fixture(scope="module")
def keys(two_projects: tuple[Settings, Settings]) -> dict[Scope, str]:
    made = {}
    for scope in Scope:
        made[scope], key = new_key(f"for-{scope}", frozenset({scope}))
        add_key(two_projects[1].keys_path, key)
    return made


@pytest.fixture(scope="module")
def server(two_projects: tuple[Settings, Settings], keys: dict[Scope, str]) -> Iterator[Server]:
    plain, guarded = two_projects
    with running(plain.project, guarded.project) as server:
        yield server


def test_several_models_are_named_by_path(server: Server, keys: dict[Scope, str]) -> None:
    """Each answers under its name, and the short path says so."""
    for name, number in ((MODEL, 1), ("guarded", 2)):
        with Client(server.url, keys[Scope.PREDICT], model=name) as client:
            answer = client.predict([ROW])
            assert (answer.model, answer.version) == (name, str(number))
            assert answer.predictions == tuple(Network(number).expected([ROW])[0])
    refused = server.predict([ROW])
    assert refused.status_code == 404
    assert f"/models/{MODEL}/predict" in refused.json()["detail"]


def test_each_says_whether_the_event_loop_answers_it(server: Server) -> None:
    """The same network twice: one waits for the disk at each batch, which no event loop does."""
    told = {each["name"]: each["serving"] for each in server.http.get("/models").json()["models"]}
    assert {name: about["fast_paths"]["own_thread"] for name, about in told.items()} == {
        MODEL: False,
        "guarded": True,
    }


def test_a_large_request_is_split_for_the_model(server: Server, keys: dict[Scope, str]) -> None:
    """More rows than the model gets at once come back in order, also from its own thread."""
    rows = [[float(i), 1.0, -2.0, float(-i)] for i in range(50)]
    with Client(server.url, keys[Scope.PREDICT], model="guarded") as client:
        assert client.predict(rows).predictions == tuple(Network(2).expected(rows)[0])


def test_a_key_opens_what_its_scope_says(server: Server, keys: dict[Scope, str]) -> None:
    """401 without a valid key, 403 without the scope, and health is open."""
    calls = {
        Scope.PREDICT: ("/models/guarded/predict", {"rows": [ROW]}),
        Scope.LABEL: ("/models/guarded/labels", {"labels": [{"id": "a", "value": 1}]}),
        Scope.ADMIN: ("/models/guarded/flush", {}),
    }
    for needed, (path, body) in calls.items():
        for token in (None, "hsk_wrong"):
            headers = {"authorization": f"Bearer {token}"} if token else {}
            answer = server.http.post(path, json=body, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        for scope, token in keys.items():
            answer = server.http.post(path, json=body, headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == (200 if scope in (needed, Scope.ADMIN) else 403)
    assert server.http.get("/health/ready").status_code == 200
    assert server.http.get("/metrics").status_code == 200  # loopback


def test_the_client_says_what_a_key_lacks(server: Server, keys: dict[Scope, str]) -> None:
    """An AuthError with the status, not a bare HTTP error."""
    key = keys[Scope.LABEL]
    with (
        Client(server.url, key, model="guarded") as client,
        pytest.raises(AuthError, match="predict") as caught,
    ):
        client.predict([ROW])
    assert caught.value.status == 403


def test_the_process_imports_nothing_slow(server: Server) -> None:
    """Neither at import nor while it loads, predicts and takes labels."""
    program = (
        "import sys, serving.__main__, serving.processes.server, homeostat.client\n"
        "import homeostat.model_runtime.torch_program\n"
        f"print([name for name in {SLOW!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    maps = Path(f"/proc/{server.process.pid}/maps")
    if maps.exists():  # the running process has mapped none of their compiled parts
        mapped = maps.read_text()
        assert "pyarrow" in mapped
        assert not [name for name in SLOW if f"site-packages/{name}/" in mapped]


@pytest.fixture
def project(tmp_path: Path) -> Settings:
    project = make_project(tmp_path / "project", '[journal]\ncommit_every = "1h"\n')
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    return project


def test_sigterm_answers_what_is_open_and_keeps_it(project: Settings) -> None:
    """A request whose body is still on its way is answered, journalled, and the status is 0."""
    body = json.dumps({"rows": [ROW], "ids": ["last-one"]}).encode()
    going_down = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield body[:10]
        assert going_down.wait(PATIENCE)
        yield body[10:]

    with running(project.project) as server:

        def begun() -> bool:
            """One request beside the one that asks."""
            return "\nhomeostat_in_flight_requests 2.0\n" in server.http.get("/metrics").text

        def listens() -> bool:
            port = int(server.url.rsplit(":", 1)[1])
            with socket.socket() as other:
                return other.connect_ex(("127.0.0.1", port)) == 0

        answers: list[httpx.Response] = []
        caller = threading.Thread(
            target=lambda: answers.append(server.http.post("/predict", content=slowly()))
        )
        caller.start()
        server.wait_for(begun)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(lambda: not listens())
        going_down.set()
        caller.join(60)
        assert server.process.wait(60) == 0
        assert answers[0].status_code == 200
        assert "ready in" in server.log.read_text()
    assert not (project.home / "serving.json").exists()
    now, hour = datetime.now(UTC), timedelta(hours=1)
    reader = Journal(project.journal_path, MODEL, Task.CLASSIFICATION)
    window = reader.window(now - hour, now + hour, FEATURES)
    assert window["_prediction_id"].to_pylist() == ["last-one"]


def test_what_waits_for_a_restart_is_said(tmp_path: Path) -> None:
    """One process takes no other settings at SIGHUP: it names those that were changed, and says
    where the file is wrong. What another room goes by is none of it, nor what the environment
    holds against the file."""
    project = make_project(tmp_path)
    publish(project, add_version(project, 1), epoch=1)
    file = tmp_path / "homeostat.toml"
    text = file.read_text()
    with running(tmp_path) as server:
        said = server.log.read_text
        server.process.send_signal(signal.SIGHUP)
        server.wait_for(lambda: "keys and certificate are read again" in said())
        assert server.predict([[1.0, 2.0, 3.0, 4.0]]).status_code == 200  # it has read all by now
        file.write_text(
            f'{text}\n[serving]\nport = 7777\ndeadline = "5s"\n[journal]\nsample = 0.5\n'
            '[monitor]\nevery = "1h"\n'
        )
        server.process.send_signal(signal.SIGHUP)
        waits = "not in force before a restart: serving.deadline, journal.sample\n"
        server.wait_for(lambda: waits in said())
        assert said().count("not in force") == 1
        file.write_text(f"{text}\n[serving]\ndeadlin = 5\n")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for(lambda: "the settings would not allow a restart" in said())
        assert "serving.deadlin" in said()
        assert server.predict([[1.0, 2.0, 3.0, 4.0]]).status_code == 200
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"HOMEOSTAT_SERVING_HOST": "0.0.0.0"}, "there are no keys"),
        ({"HOMEOSTAT_SERVING_PORT": "{taken}"}, "cannot listen"),
        ({"HOMEOSTAT_SERVING_PORT": "many"}, "serving.port"),
    ],
)
def test_a_start_that_may_not_be_is_refused(
    tmp_path: Path, environment: dict[str, str], says: str
) -> None:
    """One plain line says why, the status is 1, and nothing listens."""
    make_project(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        settings = {key: value.format(taken=port) for key, value in environment.items()}
        done = subprocess.run(
            [sys.executable, "-m", "serving", "--project", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HOMEOSTAT_SERVING_PORT": "0", **settings},
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


HANGS = {
    "a thread": "threading.Thread(target=threading.Event().wait, name='stuck').start()",
    "an exit hook": "atexit.register(threading.Event().wait)",
}


@pytest.mark.parametrize("what", HANGS)
def test_nothing_keeps_an_ended_process_alive(what: str) -> None:
    """A library's thread or exit hook that hangs, while signals to end are ignored: after a while
    the process ends by itself, with the status it had, and says what it did not wait for."""
    program = (
        "import atexit, sys, threading\n"
        "from serving.processes.last_moments import end_soon\n"
        "from serving.processes.logs import configure_logging\n"
        f"configure_logging()\n{HANGS[what]}\nend_soon(3, within=0.2)\nsys.exit(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 3
    waits = {"a thread": "threads (stuck)", "an exit hook": "what is to be called at its exit"}
    assert f"still waits for {waits[what]}: the process ends without" in done.stderr


@pytest.mark.parametrize("entry", ["serving", "serving.processes.worker"])
def test_each_process_of_the_server_ends_so(tmp_path: Path, entry: str) -> None:
    """One that serves alone, and a worker: here by a start that may not be, with a thread that
    somebody's own code began."""
    (tmp_path / "sitecustomize.py").write_text(f"import threading\n{HANGS['a thread']}\n")
    make_project(tmp_path / "project")
    given = [f"--project={tmp_path / 'project'}"]
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as listener:
        if entry != "serving":
            told = {"slot": 0, "count": 2, "line": theirs.fileno(), "listener": listener.fileno()}
            told |= {"seats": theirs.fileno(), "supervisor": os.getpid()}
            given += [f"--{name}={number}" for name, number in told.items()]
        path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        done = subprocess.run(
            [sys.executable, "-m", entry, *given],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=os.environ | {"PYTHONPATH": path, "HOMEOSTAT_SERVING_PORT": "many"},
            pass_fds=(theirs.fileno(), listener.fileno()),
        )
    assert done.returncode in (1, Slot.REFUSED)
    assert "still waits for threads (stuck): the process ends without" in done.stderr


def test_the_client_says_when_nobody_is_there() -> None:
    """Unavailable: the same call may work later."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nobody else gets the port, and nobody listens
        port = silent.getsockname()[1]
        with Client(f"http://127.0.0.1:{port}") as client:
            assert not client.ready()
            with pytest.raises(Unavailable):
                client.predict([ROW])
