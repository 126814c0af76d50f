"""A webhook receiver as a user would write one: it believes nothing without a valid signature."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from alerts.verify import verify
from homeostat.errors import AuthError

LARGEST = 64 * 1024


@dataclass(frozen=True)
class Received:
    type: str
    data: Mapping[str, Any]


class Receiver:
    """Listens on loopback until closed; keeps what arrived, once each."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._received: dict[str, Received] = {}
        self.refused = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/alerts"

    def received(self) -> list[Received]:
        return list(self._received.values())

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, headers: Mapping[str, str], body: bytes) -> int:
        try:
            message = verify(headers, body, self._secret)
        except AuthError:
            self.refused += 1
            return 401
        self._received[headers["webhook-id"]] = Received(message["type"], message["data"])
        return 204

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        take = self.take

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = min(int(self.headers.get("content-length", 0)), LARGEST)
                headers = {name.lower(): value for name, value in self.headers.items()}
                self.send_response(take(headers, self.rfile.read(length)))
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return

        return Handler
