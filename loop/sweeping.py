"""Looking for a text in whatever lies in the home folder: logs, databases, reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from homeostat.journal.delta.files import Progress

SHORTEST = 8  # characters: a shorter text is found everywhere by chance
MOST = 100  # texts; with more, a sweep takes longer than it is worth
CHUNK = 16 * 1024 * 1024


def files_with(home: Path, texts: Sequence[str], progress: Progress) -> tuple[Path, ...]:
    """Files that hold one of the texts. Parquet is not looked into: it is compressed."""
    wanted = [text.encode() for text in texts if len(text) >= SHORTEST][:MOST]
    if not wanted:
        return ()
    files = [path for path in sorted(home.rglob("*")) if path.suffix != ".parquet"]
    found = []
    for done, path in enumerate(files):
        progress("looking for what is left", done, len(files))
        if _holds(path, wanted):
            found.append(path)
    return tuple(found)


def _holds(path: Path, wanted: Sequence[bytes]) -> bool:
    overlap = max(map(len, wanted)) - 1
    try:
        if not path.is_file() or path.is_symlink():
            return False
        with path.open("rb") as file:
            before = b""
            while chunk := file.read(CHUNK):
                data = before + chunk
                if any(text in data for text in wanted):
                    return True
                before = data[-overlap:] if overlap else b""
    except OSError:  # gone meanwhile, or nothing of ours
        return False
    return False
