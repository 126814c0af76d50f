"""Requests whose heads have no end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from caller_kit import BODY, Caller, neighbour, request
from serving_kit import Server, add_version, make_project, publish, running

from serving.http.heads import MOST_BYTES, MOST_HEADERS

START = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
TRAILED = START + b"Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n0\r\n"
MUCH = 10_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # no commit of rows while memory is looked at
    text = '[journal]\ncommit_every = "1h"\n'
    project = make_project(tmp_path_factory.mktemp("heads") / "project", text)
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    with running(project.project) as server:
        yield server


def send(connection: Caller, data: bytes) -> None:
    """As much of it as the server takes."""
    try:
        for start in range(0, len(data), 100_000):
            connection.sendall(data[start : start + 100_000])
    except (BrokenPipeError, ConnectionResetError):
        pass


def memory(server: Server) -> int:
    return int(psutil.Process(server.process.pid).memory_info().rss)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (START + b"X-Long: " + b"a" * MUCH, 431),
        (START + b"a" * MUCH, 431),
        (START + b"".join(b"X-%d: a\r\n" % number for number in range(100_000)), 431),
        (START + b"a:\r\n" * 60_000, 431),
        (b"POST /" + b"a" * 1_000_000, 414),
        (b"POST /predict?" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    ],
    ids=["a value", "a name", "headers", "small headers", "URL", "a whole URL"],
)
def test_a_head_without_end_is_refused(server: Server, sent: bytes, status: int) -> None:
    """The caller is told, the connection ends, little is kept, and others are served meanwhile."""
    before = memory(server)
    with neighbour(server), ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(Caller(server))
            send(connection, sent)
            found, headers, body = connection.read()
            assert (found, headers["connection"]) == (status, "close")
            assert headers["content-type"] == "application/problem+json"
            assert b" may have " in body
            assert connection.is_gone()
        assert memory(server) - before < 50_000_000


@pytest.mark.parametrize("path", ["/predict", "/invocations", "/labels", "/nowhere"])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_head_that_is_whole_is_looked_at_too(server: Server, path: str, pieces: int) -> None:
    """However it arrives, and whatever it asks for: up to the limits it is taken."""

    def ask(*headers: str) -> int:
        sent = request(BODY, path, *headers)
        with Caller(server) as connection:
            size = -(-len(sent) // pieces)
            for start in range(0, len(sent), size):
                send(connection, sent[start : start + size])
            return connection.read()[0]

    many = [f"X-{number}: a" for number in range(MOST_HEADERS)]  # and two more
    assert ask(*many) == 431
    assert ask(*many[:-2]) == ask()
    assert ask(*(f"X-{number}: {'a' * 10_000}" for number in range(10))) == 431
    assert ask("X-Long: " + "a" * (MOST_BYTES // 2)) == ask()


def test_a_prediction_with_a_long_head_is_counted(server: Server) -> None:
    """Like any other that is refused."""

    def counted() -> int:
        return server.http.get("/metrics").text.count('code="431"')

    with Caller(server) as connection:
        send(connection, START + b"X-Long: " + b"a" * 1_000_000)
        assert connection.read()[0] == 431
    assert counted() == 1


@pytest.mark.parametrize(
    "trailers",
    [b"X-Long: " + b"a" * MUCH, b"".join(b"X-%d: a\r\n" % number for number in range(100_000))],
    ids=["a value", "headers"],
)
def test_what_follows_a_body_has_an_end_too(server: Server, trailers: bytes) -> None:
    """The trailers of a body in chunks."""
    before = memory(server)
    with neighbour(server), ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(Caller(server))
            send(connection, TRAILED + trailers)
            assert connection.is_gone()
        assert memory(server) - before < 50_000_000


def test_nobody_waits_for_the_rest_of_a_body_that_is_cut_off(tmp_path: Path) -> None:
    """Also not a page that FastAPI answers: at its end the server has nothing open."""
    project = make_project(tmp_path / "project")
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    with running(project.project) as server:
        with Caller(server) as connection:
            labels = TRAILED.replace(b"/predict", b"/labels", 1)
            send(connection, labels + b"X-Long: " + b"a" * MUCH)
            assert connection.is_gone()
        assert server.stop() == 0
        assert "graceful shutdown exceeded" not in server.log.read_text()


def test_a_long_pipeline_is_no_long_head(server: Server) -> None:
    """Requests sent together come in reads that are larger than a head may be."""
    with Caller(server) as connection:
        connection.sendall(request() * 2000)
        assert {connection.read()[0] for _ in range(2000)} == {200}
