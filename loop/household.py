"""What `homeostat up` starts for a project, and where each thing can be found."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import msgspec

from homeostat.errors import Conflict, SettingsError
from homeostat.jobs import write_atomically
from homeostat.settings import Settings
from loop.supervisor import Supervised, Supervisor
from serving.sharing.listening import listen

UI_HOST = "127.0.0.1"
UI_PATIENCE = 60.0


@dataclass(frozen=True, kw_only=True)
class Addresses:
    server: str | None
    console: str | None
    mlflow: str | None


def only_one(settings: Settings) -> IO[str]:
    """Hold what is returned; raises Conflict when the project is up already."""
    settings.home.mkdir(parents=True, exist_ok=True)
    lock = (settings.home / "up.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        raise Conflict(
            f"this project is up already (process {lock.read().strip()}); end that one first"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def require_ports(settings: Settings) -> None:
    """Tried all, before anything is started: what fails later says so in a log of its own. Raises
    SettingsError, a line for each that cannot be had."""
    serving, console, registry = settings.serving, settings.console, settings.registry
    wanted = [
        ("serving.port", serving.host, serving.port),
        ("serving.grpc_port", serving.host, serving.grpc_port),
        ("console.port", console.host, console.port),
        ("registry.ui_port", UI_HOST, registry.ui_port if _has_ui(settings) else None),
    ]
    problems = []
    with contextlib.ExitStack() as held:
        for key, host, port in wanted:
            if not port:  # none, or any free one
                continue
            try:
                held.enter_context(listen(host, port, key))
            except SettingsError as error:
                problems.append(str(error))
    if problems:
        raise SettingsError("\n".join(problems))


def household(settings: Settings, environ: Mapping[str, str]) -> Supervisor:
    """The processes of a project; each writes down in home where it listens."""
    project = str(settings.project)
    python = [sys.executable, "-P", "-m"]
    for name in ("serving.json", "console.json", "mlflow.json"):
        (settings.home / name).unlink(missing_ok=True)
    processes = [
        Supervised(
            name="server",
            command=[*python, "serving", "--project", project],
            log_file=settings.logs_path / "server.log",
            patience=settings.serving.drain.total_seconds() + 10,
        ),
        Supervised(
            name="loop",
            command=[*python, "loop", "--project", project, "loop"],
            log_file=settings.logs_path / "loop.log",
        ),
    ]
    if _has_ui(settings):
        port = settings.registry.ui_port or _free_port()
        processes.append(_mlflow_ui(settings, port))
        found = msgspec.json.encode({"url": f"http://{UI_HOST}:{port}"})
        write_atomically(settings.home / "mlflow.json", found)
    return Supervisor(processes, environ)


def addresses(settings: Settings) -> Addresses:
    """Where everything of a project is to be found, as far as it has started."""
    server = settings.registry.tracking_uri
    return Addresses(
        server=_written(settings.home / "serving.json"),
        console=_written(settings.home / "console.json"),
        mlflow=server
        if server and urlsplit(server).scheme.startswith("http")
        else _written(settings.home / "mlflow.json"),
    )


def _has_ui(settings: Settings) -> bool:
    """Of ours; an MLflow server elsewhere has its own."""
    return settings.registry.tracking_uri is None and settings.registry.ui


def _mlflow_ui(settings: Settings, port: int) -> Supervised:
    began = time.monotonic()
    bin_folder = Path(sys.executable).parent
    return Supervised(
        name="MLflow's UI",
        command=[
            str(bin_folder / "mlflow"),
            "server",
            "--backend-store-uri",
            settings.tracking_uri,
            "--default-artifact-root",
            settings.artifacts_path.as_uri(),
            "--host",
            UI_HOST,
            "--port",
            str(port),
            "--workers",
            "1",
        ],
        log_file=settings.logs_path / "mlflow.log",
        # Its background jobs are a process and some hundred MB that nothing here asks for.
        environ={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        nice=10,  # a page to look at: it yields to what serves
        # The loop makes the database; two that migrate it at once get in each other's way.
        when=lambda: settings.rollout_path.exists() or time.monotonic() - began > UI_PATIENCE,
    )


def _written(path: Path) -> str | None:
    """The address a process wrote down, while that process lives."""
    try:
        found = msgspec.json.decode(path.read_bytes())
        if "pid" in found:
            os.kill(found["pid"], 0)
        return str(found["url"])
    except (FileNotFoundError, msgspec.DecodeError, ProcessLookupError, KeyError):
        return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((UI_HOST, 0))
        return int(probe.getsockname()[1])
