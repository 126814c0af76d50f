"""Several worker processes behind one port: started, watched, replaced, asked, ended together."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from held_version_kit import add_held, let_it_load
from journal_kit import ids_of
from prometheus_client.parser import text_string_to_metric_families
from serving_kit import (
    FEATURES,
    MODEL,
    PATIENCE,
    Server,
    add_version,
    make_project,
    publish,
    running,
)
from tritonclient.grpc import InferenceServerClient, InferInput

from homeostat.journal.reader import Journal
from homeostat.records import Task
from homeostat.settings import Settings

ROW = [1.0, 2.0, 3.0, 4.0]
TWO = {"HOMEOSTAT_SERVING_WORKERS": "2"}


def project_at(folder: Path, text: str = "", *, runtime: str = "onnx") -> Settings:
    settings = make_project(folder, text)
    publish(settings, add_version(settings, 1, runtime=runtime), epoch=1)
    return settings


def workers_of(server: Server) -> list[psutil.Process]:
    """Oldest first."""
    children = psutil.Process(server.process.pid).children()
    return sorted(children, key=lambda child: (child.create_time(), child.pid))


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def counted(server: Server, name: str, **labels: str) -> float:
    """Of all series of that name."""
    families = text_string_to_metric_families(server.http.get("/metrics").text)
    values = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(values)


def logged(settings: Settings) -> list[str]:
    now, hour = datetime.now(UTC), timedelta(hours=1)
    reader = Journal(settings.journal_path, MODEL, Task.CLASSIFICATION)
    return ids_of(reader.window(now - hour, now + hour, FEATURES))


class Load:
    """Callers that never stop; each id is sent once. `fresh`: a connection for every few requests,
    otherwise one that stays."""

    def __init__(self, url: str, *, callers: int = 4, each: int | None = 5) -> None:
        self.url = url
        self.answered: list[str] = []
        self.failed: list[tuple[str, str]] = []
        self._each = each
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(n,)) for n in range(callers)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def wait_for(self, more: int) -> None:
        until, deadline = len(self.answered) + more, time.monotonic() + 60
        while len(self.answered) < until:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _call(self, caller: int) -> None:
        number = 0
        while not self._over.is_set():
            with httpx.Client(base_url=self.url, timeout=60) as http:
                for _ in range(self._each or 1_000_000):
                    if self._over.is_set():
                        return
                    number += 1
                    name = f"{caller}-{number}"
                    try:
                        answer = http.post("/predict", json={"rows": [ROW], "ids": [name]})
                    except httpx.TransportError as error:
                        self.failed.append((name, repr(error)))
                        break
                    if answer.status_code == 200:
                        self.answered.append(name)
                    else:
                        self.failed.append((name, answer.text))
                    time.sleep(0.002)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("workers")
    return project_at(folder, '[journal]\ncommit_every = "1h"\n', runtime="torch")


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[Server]:
    with running(settings.project, environ=TWO | {"HOMEOSTAT_SERVING_GRPC_PORT": "0"}) as server:
        yield server


def test_connections_are_spread_evenly(server: Server) -> None:
    """Of connections that stay open, each worker has half."""
    found = []
    for _ in range(5):  # a worker that the machine holds up just then misses some
        found.append(_farthest_apart(server, 100))
        if found[-1] <= 5:
            return
        server.wait_for(lambda: sum(_held(server)) <= 1)  # those are closed, and known to be
    raise AssertionError(found)


def _farthest_apart(server: Server, count: int) -> int:
    """How many more one of two had, at most, while so many came: chance comes back to even."""
    farthest = 0
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            client = httpx.Client(base_url=server.url, timeout=PATIENCE)
            assert stack.enter_context(client).post("/predict", json={"rows": [ROW]}).is_success
            time.sleep(0.02)  # who is busy at the moment misses it
            first, second = _held(server)
            farthest = max(farthest, abs(first - second))
    return farthest


def _held(server: Server) -> list[int]:
    port = int(server.url.rsplit(":", 1)[1])
    return [
        sum(
            each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED
            for each in worker.net_connections("tcp")
        )
        for worker in workers_of(server)
    ]


def test_any_worker_speaks_for_all(server: Server) -> None:
    """Whoever answers, /metrics has the rows of all; a flush stores what any of them logged."""
    before = counted(server, "homeostat_rows_total")
    for _ in range(10):
        with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
            http.post("/predict", json={"rows": [ROW] * 3}).raise_for_status()
    for _ in range(5):
        with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
            text = http.get("/metrics").text
        assert f'homeostat_rows_total{{model="{MODEL}",version="1"}} {before + 30}' in text
    stored = server.http.post(f"/models/{MODEL}/flush").json()
    assert stored["received"] == stored["stored"] == before + 30
    assert counted(server, "homeostat_workers") == counted(server, "homeostat_workers_ready") == 2


def test_a_killed_worker_costs_only_what_it_had_open(tmp_path: Path) -> None:
    """Under a steady load: one failure at most a caller, the server is not ready until the worker
    is replaced, no counter goes back, and each answered row is in the table, once."""
    settings = make_project(tmp_path, '[journal]\ncommit_every = "1h"\n')
    version = add_held(settings, 1)  # no worker is ready before it is let
    publish(settings, version, epoch=1)
    with running(settings.project, environ=TWO, wait=False) as server:

        def is_ready() -> bool:
            let_it_load(settings, version)  # a worker may have come to the file only just now
            return _status(server.url) == 200

        server.wait_for(is_ready)
        with Load(server.url, callers=4) as load:
            load.wait_for(100)
            rows = counted(server, "homeostat_rows_total")
            victim, other = workers_of(server)
            victim.kill()
            victim.wait(30)
            server.wait_for(lambda: _status(server.url) == 503)
            load.wait_for(100 + 4)  # which the other one answers; four may be the victim's last
            assert counted(server, "homeostat_rows_total") >= rows
            server.wait_for(is_ready)
            load.wait_for(100)
        assert len(load.failed) <= 4, load.failed
        replaced = workers_of(server)
        assert other in replaced
        assert len(replaced) == 2
        assert counted(server, "homeostat_worker_deaths_total") == 1
        assert counted(server, "homeostat_rows_total") >= rows + 200
        assert server.stop() == 0
        assert "worker 0 ended with status -9" in server.log.read_text() or (
            "worker 1 ended with status -9" in server.log.read_text()
        )
    ids = Counter(logged(settings))
    assert max(ids.values()) == 1
    assert set(load.answered) <= set(ids)


def test_a_reload_fails_no_request(tmp_path: Path) -> None:
    """SIGHUP reads the settings again and replaces the workers, one after the other: callers, also
    those with connections that stay open, see nothing of it."""
    settings = project_at(tmp_path)
    file = tmp_path / "homeostat.toml"
    with running(settings.project, environ=TWO) as server:
        before = {worker.pid for worker in workers_of(server)}
        with Load(server.url, callers=2) as short, Load(server.url, callers=2, each=None) as long:
            short.wait_for(50)
            rows = counted(server, "homeostat_rows_total")
            file.write_text(file.read_text() + "[serving]\nmax_queued_rows = 20\n")
            server.process.send_signal(signal.SIGHUP)
            server.wait_for(lambda: ".supervisor: reloaded" in server.log.read_text())
            short.wait_for(50)
            long.wait_for(50)
        assert (short.failed, long.failed) == ([], [])
        assert not before & {worker.pid for worker in workers_of(server)}
        assert counted(server, "homeostat_rows_total") >= rows + 100
        assert counted(server, "homeostat_worker_deaths_total") == 0
        assert server.predict([ROW] * 21).status_code == 413  # the new setting
        file.write_text("no settings at all")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for(lambda: "nothing is reloaded" in server.log.read_text())
        assert server.predict([ROW]).status_code == 200
        assert server.stop() == 0
    assert set(short.answered + long.answered) <= set(logged(settings))


def test_a_reload_may_change_how_many_there_are(tmp_path: Path) -> None:
    """Fewer, then more; each time all that are to be there are ready."""
    settings = project_at(tmp_path, "[serving]\nworkers = 3\n")
    file = tmp_path / "homeostat.toml"
    with running(settings.project) as server:
        for turn, count in enumerate((1, 2), 1):
            file.write_text(file.read_text().rpartition("=")[0] + f"= {count}\n")
            server.process.send_signal(signal.SIGHUP)
            server.wait_for(
                lambda turn=turn: server.log.read_text().count(".supervisor: reloaded") == turn  # type: ignore[misc]
            )
            assert len(workers_of(server)) == count
            # the connection that was kept is gone
            with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
                assert f"\nhomeostat_workers_ready {count}.0" in http.get("/metrics").text
                assert http.get("/health/ready").status_code == 200
        assert server.stop() == 0


def test_no_worker_outlives_the_supervisor(tmp_path: Path) -> None:
    """However it ends; and the port is free for the next one."""
    settings = project_at(tmp_path)
    with running(settings.project, environ=TWO) as server:
        workers = workers_of(server)
        assert len(workers) == 2
        server.process.kill()
        server.process.wait(30)
        gone, alive = psutil.wait_procs(workers, timeout=30)
        assert (len(gone), alive) == (2, [])
    port = {"HOMEOSTAT_SERVING_PORT": server.url.rsplit(":", 1)[1]}
    with running(settings.project, environ=TWO | port) as server:
        assert server.predict([ROW]).status_code == 200


def test_a_worker_that_hangs_is_not_taken_for_ready(server: Server) -> None:
    """It lives, and answers nothing: the other one says so; the server is ready when it goes on."""
    hangs, _ = workers_of(server)
    os.kill(hangs.pid, signal.SIGSTOP)
    try:
        server.wait_for(lambda: "has not answered for" in _readiness(server.url))
    finally:
        os.kill(hangs.pid, signal.SIGCONT)
    server.wait_for(lambda: _status(server.url) == 200)


def test_a_signal_at_the_start_ends_it_well(tmp_path: Path) -> None:
    """Also while the workers are still being started."""
    settings = project_at(tmp_path)
    with running(settings.project, environ=TWO, wait=False) as server:
        assert server.stop() == 0
    with running(settings.project, environ=TWO, wait=False) as server:
        server.wait_for(lambda: len(workers_of(server)) == 2)
        assert server.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_signals_after_the_work_change_nothing(tmp_path: Path, workers: str) -> None:
    """Python takes a while to take itself down: signals that come then leave the end orderly."""
    settings = project_at(tmp_path, runtime="torch")  # it takes the longest
    with running(settings.project, environ={"HOMEOSTAT_SERVING_WORKERS": workers}) as server:
        processes = workers_of(server) or [psutil.Process(server.process.pid)]
        server.process.send_signal(signal.SIGTERM)
        while processes := [process for process in processes if lives(process)]:
            if server.log.read_text().count("in the journal") == int(workers):
                for process in processes:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGTERM)
            time.sleep(0.001)
        assert server.process.wait(60) == 0, server.log.read_text()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_closed_terminal_ends_the_server(tmp_path: Path, workers: str) -> None:
    """SIGHUP is a reload, but not where it says that whoever started the server is gone."""
    settings = project_at(tmp_path)
    master, terminal = os.openpty()
    command = [sys.executable, "-m", "serving", "--project", str(settings.project)]
    settled = {"HOMEOSTAT_SERVING_PORT": "0", "HOMEOSTAT_SERVING_WORKERS": workers}
    with (tmp_path / "server.log").open("w") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | settled,
            start_new_session=True,
            preexec_fn=lambda: _begin_session(terminal),
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        os.close(terminal)
        os.close(master)
        assert process.wait(60) == 0
    finally:
        process.kill()


def _begin_session(terminal: int) -> None:
    """With this terminal; whoever started the tests may ignore SIGHUP, which would be inherited."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def test_the_supervisor_imports_nothing_heavy(server: Server) -> None:
    """It has to start workers also where memory is short."""
    mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert not [name for name in ("numpy", "torch", "pyarrow") if f"/{name}/" in mapped]


def test_a_worker_that_cannot_start_ends_the_server(tmp_path: Path) -> None:
    """As one process alone would: another server has this project's spool, and goes on."""
    settings = project_at(tmp_path)
    with running(settings.project, environ=TWO) as first:
        with running(settings.project, environ=TWO, wait=False) as second:
            assert second.process.wait(60) == 1
        assert "another process writes to the spool" in first.log.read_text()
        assert first.predict([ROW]).status_code == 200


def test_fewer_workers_store_what_the_others_left(tmp_path: Path) -> None:
    """A spool belongs to a worker's place; where that is gone, the first worker empties it."""
    settings = project_at(tmp_path, '[journal]\ncommit_every = "1h"\n')
    spool = settings.spool_path / MODEL
    with running(settings.project, environ=TWO) as server:
        with Load(server.url) as load:
            server.wait_for(lambda: len({path.parent for path in spool.glob("*/*.arrows")}) == 2)
        workers = workers_of(server)
        server.process.kill()
        server.process.wait(30)
        psutil.wait_procs(workers, timeout=30)  # while one is left, its spool is not free
    with running(settings.project) as server:
        server.wait_for(lambda: not list(spool.glob("*-1/*.arrows")))
        assert server.stop() == 0
    ids = Counter(logged(settings))
    assert set(load.answered) <= set(ids)
    assert max(ids.values()) == 1


def _status(url: str) -> int:
    """By a connection of its own: one that is kept may be a dead worker's."""
    try:
        return httpx.get(f"{url}/health/ready", timeout=2).status_code
    except httpx.TransportError:
        return 0


def _readiness(url: str) -> str:
    try:
        return httpx.get(f"{url}/health/ready", timeout=2).text
    except httpx.TransportError:  # by the worker that hangs
        return ""


def test_the_announcement_names_the_supervisor(server: Server, settings: Settings) -> None:
    """Who looks for the server finds one address, and the process to signal."""
    found = json.loads((settings.home / "serving.json").read_text())
    assert (found["url"], found["pid"]) == (server.url, server.process.pid)
    os.kill(found["pid"], 0)


def test_workers_share_the_port_of_grpc(server: Server, settings: Settings) -> None:
    """Any of them answers there, and speaks for all."""
    address = json.loads((settings.home / "serving.json").read_text())["grpc"]
    given = InferInput("input", [1, 2, 2], "FP32")
    given.set_data_from_numpy(np.zeros((1, 2, 2), np.float32))
    before = counted(server, "homeostat_rows_total")
    for _ in range(6):
        with InferenceServerClient(address) as client:
            assert client.is_server_ready()
            client.infer(MODEL, [given])
    assert counted(server, "homeostat_rows_total") == before + 6
