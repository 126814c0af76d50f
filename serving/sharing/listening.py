"""Where a server listens, and how those who look for it in its project's folder find it."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from homeostat.errors import SettingsError
from homeostat.jobs import write_atomically
from homeostat.settings import Settings
from homeostat.settings_of_serving import ServingSettings
from homeostat.settings_reader import PREFIX

BACKLOG = 2048
ANNOUNCEMENT = "serving.json"


def listen(
    host: str, port: int, key: str = "serving.port", *, shared: bool = False
) -> socket.socket:
    """Port 0 takes any free one; `shared`: other processes listen on the same one. Raises
    SettingsError about the setting `key`."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=shared)
    except OSError as error:
        raise _taken(host, port, error, key) from None


def reserve(host: str, port: int) -> socket.socket:
    """A port that several processes may listen on, each by itself, while this socket is open."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        held = socket.socket(family, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
    except OSError as error:
        raise _taken(host, port, error, "serving.grpc_port") from None
    return held


def _taken(host: str, port: int, error: OSError, key: str) -> SettingsError:
    variable = f"{PREFIX}{key.replace('.', '_')}".upper()
    message = (
        f"cannot listen on {host}:{port} ({error.strerror}); is another server running? Choose "
        f"another port there, or by {variable}"
    )
    return SettingsError(message, key=key)


def address(listener: socket.socket, serving: ServingSettings) -> str:
    host, port = listener.getsockname()[:2]
    # what listens everywhere is reached from this machine by loopback
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    scheme = "http" if serving.tls_certificate is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def announced(projects: Sequence[Settings], where: Mapping[str, str]) -> Iterator[None]:
    """On standard output, and in each project's folder until the end of the block."""
    paths = [_announce(settings.home, where) for settings in projects]
    try:
        sys.stdout.write(json.dumps({"event": "listening", **where}) + "\n")
        sys.stdout.flush()
        yield
    finally:
        for path in paths:
            _withdraw(path)


def _announce(home: Path, where: Mapping[str, str]) -> Path:
    path = home / ANNOUNCEMENT
    home.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({**where, "pid": os.getpid()}).encode())
    return path


def _withdraw(path: Path) -> None:
    """Unless another server has announced itself there since."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        if json.loads(path.read_text())["pid"] == os.getpid():
            path.unlink()
