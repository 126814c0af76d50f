"""A version from MLflow into the cache, by a helper: the server's own process knows no MLflow."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from homeostat.errors import JobError
from homeostat.settings import Settings

FETCH_LIMIT = 600.0  # seconds; a large model over a slow line
LAST_LINES = 5


async def fetch(settings: Settings, version: str) -> None:
    """Run the helper that talks to MLflow; raises JobError with its last lines."""
    command = ["-m", "homeostat.registry", "fetch"]
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        "--project",
        str(settings.project),
        "--version",
        version,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # so that it ends with all it started
    )
    try:
        _, errors = await asyncio.wait_for(child.communicate(), FETCH_LIMIT)
    except TimeoutError:
        raise JobError(f"fetching version {version} took over {FETCH_LIMIT:g} s") from None
    finally:
        if child.returncode is None:
            os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
    if child.returncode != 0:
        lines = errors.decode(errors="replace").strip().splitlines()
        raise JobError(
            f"version {version} could not be fetched (status {child.returncode})",
            tail="\n".join(lines[-LAST_LINES:]),
        )
