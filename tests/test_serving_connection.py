"""What clients do to connections: whole, in pieces, too much, too slowly, or not at all."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from caller_kit import BODY, PATIENCE, ROWS, Caller, is_right, neighbour, request
from serving_kit import Server, add_version, make_project, publish, running

from homeostat.auth import Scope, add_key, new_key

PROJECT = """
[serving]
max_body = "64KB"
"""
IMPATIENT = PROJECT + 'arrive_within = "2s"\n'


def project(folder: Path, text: str) -> Path:
    settings = make_project(folder, text)
    publish(settings, add_version(settings, 1, runtime="onnx"), epoch=1)
    return settings.project


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(project(tmp_path_factory.mktemp("connection"), PROJECT)) as server:
        yield server


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its clients have two seconds; for those alone that are to be too slow, and send whatever
    else they ask at once."""
    with running(project(tmp_path_factory.mktemp("impatient"), IMPATIENT)) as server:
        yield server


def is_answering(server: Server) -> bool:
    """A request that is sent in one piece."""
    with Caller(server) as connection:
        connection.sendall(request())
        status, _, body = connection.read()
    return status == 200 and is_right(body)


@pytest.mark.parametrize(
    "sent",
    [
        request(),
        request(BODY, "/models/shapes/predict"),
        request(BODY, "/predict?a=1"),
        request(BODY, "/predict", "Connection: keep-alive", "X-Other: 1"),
        b"POST /predict HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY,
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\n" + BODY[:5] + b"\r\n%x\r\n" % len(BODY[5:]) + BODY[5:] + b"\r\n0\r\n\r\n",
    ],
    ids=["plain", "named", "query", "headers", "1.0", "chunked"],
)
@pytest.mark.parametrize("piece", [1 << 20, 7])
def test_every_way_to_send_a_prediction_is_answered(
    server: Server, sent: bytes, piece: int
) -> None:
    """Whole and in pieces, with a date, and with the right content length."""
    with Caller(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(sent), piece):
            connection.sendall(sent[start : start + piece])
        status, headers, body = connection.read()
    assert (status, headers["content-type"]) == (200, "application/json")
    assert is_right(body)
    assert headers["content-length"] == str(len(body))
    assert headers["date"].endswith("GMT")


def test_a_client_that_asks_first_is_told_to_go_on(server: Server) -> None:
    """Expect: 100-continue, as curl sends it before large bodies."""
    head, _, body = request(BODY, "/predict", "Expect: 100-continue").partition(b"\r\n\r\n")
    with Caller(server) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        status, _, answer = connection.read()
    assert status == 200
    assert is_right(answer)


def test_answers_come_in_the_order_of_the_requests(server: Server) -> None:
    """Of requests sent without waiting for each other, whatever they ask for."""
    health = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    bad = request(b'{"rows": [["x"]]}')
    kinds = random.Random(0).choices(["good", "bad", "health"], k=60)
    sent = {"good": request(), "bad": bad, "health": health}
    with Caller(server) as connection:
        connection.sendall(b"".join(sent[kind] for kind in kinds))
        answers = [connection.read() for _ in kinds]
    for kind, (status, _, body) in zip(kinds, answers, strict=True):
        assert status == (422 if kind == "bad" else 200)
        assert kind != "good" or is_right(body)
        assert kind != "health" or body == b'{"status":"live"}'


def test_a_connection_ends_when_its_client_says_so(server: Server) -> None:
    """After the answer, which says it too; an error's as well."""
    for body, expected in ((BODY, 200), (b"nonsense", 400)):
        with Caller(server) as connection:
            connection.sendall(request(body, "/predict", "Connection: close"))
            status, headers, _ = connection.read()
            assert (status, headers["connection"]) == (expected, "close")
            assert connection.is_ended()


@pytest.mark.parametrize("size", [100_000, 100_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_too_large_is_refused(server: Server, size: int, *, chunked: bool) -> None:
    """By its announced length before it is sent, else as soon as it is known; somebody else is
    answered all the while, and afterwards."""
    how = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    with neighbour(server), Caller(server) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\n" + how + b"\r\n\r\n")
        part = b" " * 50_000
        try:
            for _ in range(0, size, len(part)):
                connection.sendall(b"%x\r\n" % len(part) + part + b"\r\n" if chunked else part)
            connection.sendall(b"0\r\n\r\n" if chunked else b"")
        except (BrokenPipeError, ConnectionResetError):  # it does not read on
            assert size > 1_000_000
        # what came before the end of the connection is there still
        status, headers, _ = connection.read()
        assert (status, headers["connection"]) == (413, "close")
        assert connection.is_gone()


def test_who_sends_too_slowly_is_told_and_harms_nobody(impatient: Server) -> None:
    """A head or a body that does not come in time ends its connection; others are answered."""
    with ExitStack() as stack:
        started = [stack.enter_context(Caller(impatient)) for _ in range(20)]
        for at, connection in enumerate(started):
            whole = request()
            connection.sendall(whole[: len(whole) - 5] if at % 2 else whole[:10])
        assert is_answering(impatient)
        for at, connection in enumerate(started):
            if at % 2:
                status, headers, body = connection.read()
                assert (status, headers["connection"]) == (408, "close")
                assert b"arrive_within" in body
            assert connection.is_ended()
    assert is_answering(impatient)


def test_clients_that_hang_up_harm_nobody(server: Server) -> None:
    """Half-closed, reset in the middle of a body, or gone before their answer."""
    for at in range(60):
        url = urlsplit(server.url)
        connection = socket.create_connection((url.hostname or "", url.port or 0))
        whole = request()
        connection.sendall(whole if at % 3 else whole[:-9])
        if at % 2:
            connection.shutdown(socket.SHUT_WR)
        else:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    assert server.predict(ROWS).status_code == 200
    assert "unexpected" not in server.log.read_text()


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        (request(), 1),
        (request() * 3, 3),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", 1),
        (request()[:-5], 0),
        (request()[:20], 0),
        (b"", 0),
    ],
    ids=["prediction", "pipelined", "page", "half a body", "half a head", "nothing"],
)
def test_who_has_said_everything_still_gets_an_answer(
    server: Server, sent: bytes, answers: int
) -> None:
    """Clients that close their side and wait, many at once: what they asked is answered, then the
    connection ends; others are served meanwhile."""
    with neighbour(server), ExitStack() as stack:
        waiting = [stack.enter_context(Caller(server)) for _ in range(300)]
        for connection in waiting:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        assert server.predict(ROWS).status_code == 200
        for connection in waiting:
            assert [connection.read()[0] for _ in range(answers)] == [200] * answers
            assert connection.is_ended()


def test_five_thousand_idle_connections_leave_room_for_others(server: Server) -> None:
    """Each may be used afterwards."""
    with ExitStack() as stack:
        idle = [stack.enter_context(Caller(server)) for _ in range(5000)]
        for _ in range(20):
            assert server.predict(ROWS).status_code == 200
        for connection in idle[::500]:
            connection.sendall(request())
            assert connection.read()[0] == 200


def test_a_client_that_does_not_read_fills_no_memory(server: Server) -> None:
    """Requests without end from one that takes no answer wait at its own end of the line."""
    sent = 0
    with Caller(server) as connection:
        connection.settimeout(1.0)
        many = request() * 200
        try:
            while sent < 400_000_000:
                sent += connection.send(many)
        except TimeoutError:
            pass
        assert sent < 400_000_000
        assert server.predict(ROWS).status_code == 200


def test_who_takes_no_answer_is_left(impatient: Server) -> None:
    """Once nothing was taken for `arrive_within`: what waits for such a client is given up, whether
    it goes on asking or has closed its side; others are served meanwhile."""
    large = request(json.dumps({"rows": ROWS * 2000}).encode())  # its answer is larger still
    with neighbour(impatient), ExitStack() as stack:
        before = _sockets(impatient)
        for number in range(3):
            connection = stack.enter_context(Caller(impatient, room=4096))
            connection.settimeout(1.0)
            with suppress(TimeoutError, ConnectionError):
                while True:  # until what the system takes between us is full
                    connection.sendall(large)
            if number:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + PATIENCE
        while _sockets(impatient) > before:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_wrong_key_is_refused_and_the_connection_stays(tmp_path: Path) -> None:
    """The body is read and dropped, so that the next request on the connection can be right."""
    settings = make_project(tmp_path / "project")
    publish(settings, add_version(settings, 1, runtime="onnx"), epoch=1)
    token, key = new_key("app", frozenset([Scope.PREDICT]))
    add_key(settings.keys_path, key)
    with running(settings.project) as server, Caller(server) as connection:
        connection.sendall(request(BODY, "/predict", "Authorization: Bearer hsk_wrong"))
        status, headers, _ = connection.read()
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        connection.sendall(request(BODY, "/predict", f"Authorization: Bearer {token}"))
        status, _, body = connection.read()
        assert status == 200
        assert is_right(body)


def test_malformed_bodies_never_make_the_server_fail(server: Server) -> None:
    """10,000 bodies with bytes changed, cut, doubled: each is answered by 200 or by what is wrong
    with it, and right ones sent in the same moments are answered rightly."""
    chance = random.Random(20261121)
    whole = json.dumps({"rows": ROWS * 2, "ids": ["a", "b"], "keys": ["k", None]}).encode()
    right, broken = 0, []
    with Caller(server) as ours, Caller(server) as theirs:
        for number in range(10_000):
            theirs.sendall(request(_mutated(whole, chance)))
            if number % 10 == 0:
                ours.sendall(request())
                status, _, body = ours.read()
                right += status == 200 and is_right(body)
            status, headers, _ = theirs.read()
            if status not in (200, 400, 422):
                broken.append(status)
            assert headers.get("connection") != "close"
    assert (right, broken) == (1000, [])


def _mutated(body: bytes, chance: random.Random) -> bytes:
    changed = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) or 1)
        match chance.randrange(5):
            case 0:
                changed[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del changed[at : at + chance.randint(1, 20)]
            case 2:
                changed[at:at] = changed[at : at + chance.randint(1, 20)]
            case 3:
                changed[at:at] = chance.choice([b"null", b"1e999", b"{", b"]", b'"', b"-", b"\\u"])
            case _:
                changed[at:at] = bytes(chance.randrange(256) for _ in range(3))
    return bytes(changed)


def test_no_socket_of_a_client_that_is_gone_stays_open(server: Server, impatient: Server) -> None:
    """After all of this the processes hold no sockets of clients that are gone."""
    deadline = time.monotonic() + PATIENCE
    while max(_sockets(server), _sockets(impatient)) > 60:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _sockets(server: Server) -> int:
    folder = Path(f"/proc/{server.process.pid}/fd")
    return sum(1 for each in folder.iterdir() if _is_socket(each))


def _is_socket(each: Path) -> bool:
    try:
        return str(each.readlink()).startswith("socket:")
    except OSError:
        return False
