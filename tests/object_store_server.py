"""`python tests/object_store_server.py PORT`: moto's S3 server, which can be told to fail.

Prints its port when it listens. Then each line on its standard input is a mode, repeated on its
standard output once it holds: "fine"; "500" for everything; "lost answers",
where commits are done and then answered with 500, or "lost answers NAME" for those of one table;
"slow commits", so that those of two writers meet. It ends when its standard input does.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Store:
    """As S3, and unlike moto, it decides between two conditional writes at once."""

    def __init__(self) -> None:
        self.mode = "fine"
        self._app = DomainDispatcherApplication(create_backend_app)
        self._deciding = threading.Lock()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[Any]:
        if self.mode == "500":
            return _error(start_response)
        if "HTTP_IF_NONE_MATCH" not in environ:
            answer: Iterable[Any] = self._app(environ, start_response)
            return answer
        if self.mode == "slow commits":
            time.sleep(0.1)
        with self._deciding:
            table = self.mode.removeprefix("lost answers").strip()
            if not self.mode.startswith("lost answers") or table not in environ["PATH_INFO"]:
                return list(self._app(environ, start_response))
            list(self._app(environ, lambda *_: None))
            return _error(start_response)


def _error(start_response: Callable[..., Any]) -> Iterable[Any]:
    start_response("500 Internal Server Error", [("Content-Length", "0")])
    return []


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing: thousands of lines."""


def main() -> None:
    store = Store()
    server = make_server(
        "127.0.0.1", int(sys.argv[1]), store, threaded=True, request_handler=Handler
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        store.mode = line.strip()
        sys.stdout.write(line)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
