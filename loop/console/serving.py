"""The console's server: a thread of the loop's process."""

from __future__ import annotations

import logging
import socket
import threading

import msgspec
import uvicorn

from homeostat.auth import load_keys, require_keys_beyond_loopback
from homeostat.jobs import write_atomically
from loop.console.app import make_app
from loop.context import Context

log = logging.getLogger(__name__)


def serve_console(context: Context, stop: threading.Event) -> str:
    """Start serving; the address. Ends when `stop` is set."""
    settings = context.settings.console
    keys = load_keys(context.settings.keys_path)
    require_keys_beyond_loopback(settings.host, keys, "console")
    listening = socket.create_server((settings.host, settings.port), backlog=128)
    url = f"http://{settings.host}:{listening.getsockname()[1]}"
    config = uvicorn.Config(
        make_app(context, keys), log_config=None, access_log=False, lifespan="off"
    )
    server = _ThreadedServer(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True, name="console")
    thread.start()

    def end() -> None:
        stop.wait()
        server.should_exit = True

    threading.Thread(target=end, daemon=True).start()
    write_atomically(context.settings.home / "console.json", msgspec.json.encode({"url": url}))
    log.info("Status page: %s", url)
    return url


class _ThreadedServer(uvicorn.Server):
    """Signals belong to the loop's main thread."""

    def install_signal_handlers(self) -> None:
        return
