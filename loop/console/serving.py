"""The console's server: a thread of the loop's process."""

from __future__ import annotations

import logging
import os
import socket
import threading

import msgspec
import uvicorn

from homeostat.auth import load_keys, require_keys_beyond_loopback
from homeostat.jobs import write_atomically
from homeostat.key_watch import KeyWatch
from loop.console.app import make_app
from loop.context import Context

log = logging.getLogger(__name__)


def serve_console(context: Context, stop: threading.Event) -> None:
    """Start serving, until `stop` is set. The loop goes on without a page that cannot be served."""
    settings = context.settings.console
    keys = load_keys(context.settings.keys_path)
    require_keys_beyond_loopback(settings.host, keys, "console")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listening = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        log.error(
            "No status page: %s:%d cannot be listened at (%s); set [console] port to another one.",
            settings.host,
            settings.port,
            error,
        )
        return
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{listening.getsockname()[1]}"
    app = make_app(context, KeyWatch(context.settings.keys_path, keys))
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True, name="console")
    thread.start()

    def end() -> None:
        stop.wait()
        server.should_exit = True

    threading.Thread(target=end, daemon=True).start()
    found = msgspec.json.encode({"url": url, "pid": os.getpid()})
    write_atomically(context.settings.home / "console.json", found)
    log.info("Status page: %s", url)
