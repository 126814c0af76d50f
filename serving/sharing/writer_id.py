"""By which name the prediction log knows a process that writes to it."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from homeostat.jobs import write_atomically


def writer_id(home: Path, slot: int = 0) -> str:
    """The same after every restart: by it the journal knows what this process has stored. Of
    several workers, each has a slot; the supervisor asks first, so that all find the same file."""
    path = home / "server-id"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        write_atomically(path, str(uuid4()).encode())
    own = path.read_text().strip()
    return f"{own}-{slot}" if slot else own
