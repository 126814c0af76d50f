"""A version from MLflow into the cache, by a helper: the server's own process knows no MLflow."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable

from homeostat.errors import JobError
from homeostat.settings import Settings

FETCH_LIMIT = 600.0  # seconds; a large model over a slow line
GIVEN_UP = 3.0  # seconds for a killed helper to end: a disk that hangs does not let it go
LAST_LINES = 5


async def fetch(settings: Settings, version: str, still: Callable[[], None]) -> None:
    """Run the helper that talks to MLflow; raises JobError with its last lines. `still` is asked at
    each poll, and ends the helper by raising: storage may hang, and another version be wanted."""
    fetching = asyncio.ensure_future(_fetch(settings, version))
    try:
        while not fetching.done():
            await asyncio.wait((fetching,), timeout=settings.serving.poll.total_seconds())
            still()
        await fetching
    finally:
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)


async def _fetch(settings: Settings, version: str) -> None:
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
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), GIVEN_UP)
    if child.returncode != 0:
        lines = errors.decode(errors="replace").strip().splitlines()
        raise JobError(
            f"version {version} could not be fetched (status {child.returncode})",
            tail="\n".join(lines[-LAST_LINES:]),
        )
