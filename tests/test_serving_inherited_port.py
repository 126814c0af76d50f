"""What the supervisor has opened stays as it is until a restart, whatever the files say by then:
neither a reload nor a worker in a dead one's place opens it further."""

from __future__ import annotations

import contextlib
import signal
import socket
from pathlib import Path

import httpx
import psutil
import pytest
from serving_kit import Server, add_version, make_project, publish, running
from tls_kit import make_certificate

from homeostat.auth import Scope, add_key, new_key
from homeostat.settings import Settings

ROW = [1.0, 2.0, 3.0, 4.0]
TWO = {"HOMEOSTAT_SERVING_WORKERS": "2"}
TLS = '[serving]\ntls_certificate = "certificate.pem"\ntls_key = "key.pem"\n'
REFUSED = "ended with status 78"  # of a worker that the settings do not let start
# of each call a connection of its own: it may be any worker's
FRESH = httpx.Client(verify=False, timeout=10, limits=httpx.Limits(max_keepalive_connections=0))


@pytest.fixture
def project(tmp_path: Path) -> Settings:
    project = make_project(tmp_path)
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    return project


def rewrite(project: Settings, text: str) -> None:
    """The section [serving] of its file."""
    file = project.project / "homeostat.toml"
    file.write_text(file.read_text().partition("[serving]")[0] + text)


def make_key(project: Settings) -> None:
    add_key(project.keys_path, new_key("shop", frozenset({Scope.PREDICT}))[1])


def workers_of(server: Server) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return sorted(children, key=lambda child: (child.create_time(), child.pid))


def reload(server: Server, says: str) -> None:
    """And wait until the supervisor says so once more."""
    before = server.log.read_text().count(says)
    server.process.send_signal(signal.SIGHUP)
    server.wait_for(lambda: server.log.read_text().count(says) > before)


def told(server: Server, says: str) -> None:
    server.wait_for(lambda: says in server.log.read_text())


def refuse_reload(server: Server, why: str) -> None:
    """No worker is touched, and the server is as ready as before."""
    before = workers_of(server)
    reload(server, "nothing is reloaded: ")
    assert why in server.log.read_text().rpartition("nothing is reloaded: ")[2]
    assert workers_of(server) == before
    assert FRESH.get(f"{server.url}/health/ready").status_code == 200


def statuses(server: Server, path: str = "/predict") -> set[int]:
    """Of calls without a key."""
    method = "GET" if path == "/metrics" else "POST"
    calls = [FRESH.request(method, server.url + path, json={"rows": [ROW]}) for _ in range(6)]
    return {call.status_code for call in calls}


def kill_one(server: Server) -> None:
    """And wait until it is told that the next one in its place may not start."""
    before = server.log.read_text().count(REFUSED)
    workers_of(server)[0].kill()
    server.wait_for(lambda: server.log.read_text().count(REFUSED) > before)


def is_ready(server: Server) -> bool:
    with contextlib.suppress(httpx.TransportError):  # by a connection to who was just killed
        return FRESH.get(f"{server.url}/health/ready").status_code == 200
    return False


def test_a_port_open_to_others_keeps_its_keys(project: Settings) -> None:
    """With another host in the file, all that asked for a key still does; and with the keys gone
    too there is no reload, and no worker in a dead one's place. Nor is gRPC opened."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        grpc = free.getsockname()[1]
    rewrite(project, '[serving]\nhost = "0.0.0.0"\n')
    make_key(project)
    with running(project.project, environ=TWO) as server:
        before = workers_of(server)
        rewrite(project, f'[serving]\nhost = "127.0.0.1"\ngrpc_port = {grpc}\n')
        reload(server, ".supervisor: reloaded")
        assert "serving.host and the ports stay as they were" in server.log.read_text()
        assert not {each.pid for each in before} & {each.pid for each in workers_of(server)}
        assert statuses(server) == statuses(server, "/metrics") == {401}
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", grpc))

        kept = project.keys_path.read_text()
        project.keys_path.unlink()
        refuse_reload(server, '"shapes" has no keys any more')
        kill_one(server)
        assert statuses(server) == statuses(server, "/metrics") == {401}
        project.keys_path.write_text(kept)
        server.wait_for(lambda: is_ready(server))
        assert statuses(server) == {401}
        assert server.stop() == 0


def test_an_open_port_stays_open_only_where_that_is_meant(project: Settings) -> None:
    """A reload by which the server that is open to others would ask nobody for a key is none."""
    rewrite(project, '[serving]\nhost = "0.0.0.0"\nopen_without_keys = true\n')
    with running(project.project, environ=TWO) as server:
        rewrite(project, '[serving]\nhost = "127.0.0.1"\n')
        refuse_reload(server, '"0.0.0.0" can be reached from outside and there are no keys')
        assert server.stop() == 0


def test_keys_made_meanwhile_hold_until_a_restart(project: Settings) -> None:
    """Also on loopback, where a start without keys is allowed: once callers need one, neither a
    reload nor a worker in a dead one's place does without. Nor are settings a reload that would
    allow no start: another host, while there are no keys."""
    with running(project.project, environ=TWO) as server:
        assert statuses(server) == {200}
        rewrite(project, '[serving]\nhost = "0.0.0.0"\n')
        refuse_reload(server, '"0.0.0.0" can be reached from outside and there are no keys')
        rewrite(project, "")
        make_key(project)
        for who in ("", "worker 0 ", "worker 1 "):  # by the supervisor, and by each of them
            told(server, f"INFO {who}homeostat.key_watch: ")
        assert statuses(server) == {401}
        kept = project.keys_path.read_text()
        project.keys_path.unlink()
        refuse_reload(server, "asks for one until a restart")
        kill_one(server)
        assert statuses(server) == {401}
        project.keys_path.write_text(kept)
        server.wait_for(lambda: is_ready(server))
        assert server.stop() == 0


@pytest.mark.parametrize(("first", "then"), [(TLS, ""), ("", TLS)], ids=["off", "on"])
def test_tls_is_turned_on_or_off_by_a_restart_only(
    project: Settings, first: str, then: str
) -> None:
    """Workers of both kinds at one port would answer every other caller: there is no reload, and a
    worker that dies has no successor of the other kind."""
    make_certificate(project.project, "us")
    rewrite(project, first)
    with running(project.project, environ=TWO, wait=False) as server:
        server.wait_for(lambda: is_ready(server))
        rewrite(project, then)
        refuse_reload(server, "serving.tls_certificate: the port was opened")
        kill_one(server)
        other = {"https": "http", "http": "https"}[server.url.partition(":")[0]]
        for _ in range(4):
            with pytest.raises(httpx.TransportError):
                FRESH.get(f"{other}:{server.url.partition(':')[2]}/health/live")
        rewrite(project, first)
        server.wait_for(lambda: is_ready(server))
        assert server.stop() == 0
