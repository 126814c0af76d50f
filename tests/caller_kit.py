"""A client of HTTP/1 that sends its bytes by hand."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from serving_kit import Network, Server

ROWS = [[1.0, 2.0, 3.0, 4.0]]
BODY = json.dumps({"rows": ROWS}).encode()
PATIENCE = 30.0


class Caller(socket.socket):
    """One connection to the server."""

    def __init__(self, server: Server, room: int | None = None) -> None:
        """`room`: for so many bytes of answers that it has not read."""
        super().__init__()
        if room is not None:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        url = urlsplit(server.url)
        assert url.hostname is not None
        self.settimeout(PATIENCE)
        self.connect((url.hostname, url.port or 0))
        self._answers = self.makefile("rb")

    def close(self) -> None:
        self._answers.close()
        super().close()

    def read(self) -> tuple[int, dict[str, str], bytes]:
        """One answer: status, headers, body."""
        status = int(self._answers.readline().split()[1])
        headers = {}
        while line := self._answers.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name] = value
        return status, headers, self._answers.read(int(headers["content-length"]))

    def is_ended(self) -> bool:
        return self._answers.read(1) == b""

    def is_gone(self) -> bool:
        """As above; or with a part of what we sent left unread."""
        try:
            return self.is_ended()
        except ConnectionResetError:
            return True


def request(body: bytes = BODY, path: str = "/predict", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def is_right(body: bytes) -> bool:
    _, expected = Network(1).expected(ROWS)
    return bool(json.loads(body)["probabilities"][0] == pytest.approx(expected[0], abs=1e-5))


@contextmanager
def neighbour(server: Server) -> Iterator[None]:
    """Somebody who asks all the while, and once more at the end, and is always answered rightly."""
    found: list[int] = []
    begun, ended = threading.Event(), threading.Event()

    def ask() -> None:
        with Caller(server) as connection:
            last = False
            while not last:
                last = ended.wait(0.005)
                connection.sendall(request())
                status, _, body = connection.read()
                found.append(status if is_right(body) else -1)
                begun.set()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        assert begun.wait(PATIENCE)
        yield
    finally:
        ended.set()
        thread.join(2 * PATIENCE)
    assert not thread.is_alive()
    assert len(found) > 1
    assert set(found) == {200}
