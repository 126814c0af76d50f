"""A reload by settings that do not work: it is told, others serve on, the next one mends it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import psutil
from serving_kit import PATIENCE, Server, add_version, make_project, publish, running

ROW = [1.0, 2.0, 3.0, 4.0]


def workers_of(server: Server) -> set[int]:
    return {child.pid for child in psutil.Process(server.process.pid).children()}


def readiness(server: Server) -> tuple[int, str]:
    """By a connection of its own: one that is kept may be a worker's that left."""
    try:
        answer = httpx.get(f"{server.url}/health/ready", timeout=20)
    except httpx.TransportError as error:
        return 0, str(error)
    return answer.status_code, answer.text


def predict(server: Server) -> httpx.Response:
    return httpx.post(f"{server.url}/predict", json={"rows": [ROW]}, timeout=PATIENCE)


def test_a_reload_that_cannot_be_is_told_and_mended_by_another(tmp_path: Path) -> None:
    """With a setting by which no model loads the first worker's successor is never ready: the
    server says so, for as long as that is, and answers by the others, also those that are not to
    be there in the end; the settings as they were, at another SIGHUP, replace all of them."""
    project = make_project(tmp_path, "[serving]\nworkers = 2\n")
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    file = tmp_path / "homeostat.toml"
    text = file.read_text()
    with running(project.project) as server:
        before = workers_of(server)
        one = text.replace("workers = 2", "workers = 1")
        file.write_text(f'{one}embedding = "encodr"\n')
        server.process.send_signal(signal.SIGHUP)
        server.wait_for(lambda: "the reload waits for worker 0" in server.log.read_text())
        server.wait_for(lambda: "version 1: " in readiness(server)[1])  # it has tried by then
        status, why = readiness(server)
        assert status == 503
        assert "worker 0 of 2 is not ready: version 1: " in why
        assert "encodr" in why
        for _ in range(5):
            answer = predict(server)
            assert answer.status_code == 200, answer.text
        assert len(before & workers_of(server)) == 1
        file.write_text(text)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for(lambda: ".supervisor: reloaded" in server.log.read_text())
        assert readiness(server)[0] == 200
        after = workers_of(server)
        assert len(after) == 2
        assert not before & after
        assert predict(server).status_code == 200
        assert server.stop() == 0


def test_a_reload_begins_anew_while_one_waits(tmp_path: Path) -> None:
    """For a worker that has nothing to serve, here in another home, which is no error: the next
    SIGHUP is heard all the same."""
    project = make_project(tmp_path)
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    file = tmp_path / "homeostat.toml"
    text = file.read_text()
    with running(project.project, environ={"HOMEOSTAT_SERVING_WORKERS": "2"}) as server:
        before = workers_of(server)
        file.write_text(f'home = "elsewhere"\n{text}')
        server.process.send_signal(signal.SIGHUP)
        server.wait_for((tmp_path / "elsewhere" / "server-id").exists)
        file.write_text(text)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for(lambda: ".supervisor: reloaded" in server.log.read_text())
        assert readiness(server)[0] == 200
        assert not before & workers_of(server)
        assert server.stop() == 0


def test_what_is_wrong_on_disk_changes_nothing_and_ends_nothing(tmp_path: Path) -> None:
    """Settings or keys that nobody can read, however odd, are no reload, and the next SIGHUP is
    heard; where every worker dies meanwhile, the server comes back once they are put right."""
    project = make_project(tmp_path, "[serving]\nworkers = 2\n")
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    file = tmp_path / "homeostat.toml"
    text = file.read_text()
    with running(project.project) as server:

        def told(line: str) -> None:
            server.wait_for(lambda: line in server.log.read_text())

        before = workers_of(server)
        file.write_text("odd = " + 5000 * "[")
        server.process.send_signal(signal.SIGHUP)
        told("nothing is reloaded")
        file.write_text(text)
        project.keys_path.mkdir(parents=True)
        server.process.send_signal(signal.SIGHUP)
        told(f"nothing is reloaded: {project.keys_path}: cannot be read")
        assert workers_of(server) == before
        assert readiness(server)[0] == 200
        for worker in sorted(before):
            os.kill(worker, signal.SIGKILL)
        for number in (0, 1):
            told(f"worker {number} ended with status 78")
        project.keys_path.rmdir()
        server.wait_for(lambda: readiness(server)[0] == 200)
        assert not before & workers_of(server)
        assert server.stop() == 0
