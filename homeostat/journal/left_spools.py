"""What writers that are gone left in their spools."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from homeostat.errors import Conflict, JournalUnavailable
from homeostat.journal.writer import JournalWriter
from homeostat.records import Task

SOON = timedelta(seconds=20)


def commit_left(
    url: str, spool: Path, model: str, task: Task, *, within: timedelta = SOON
) -> tuple[str, ...]:
    """Commit what dead writers left in their spools; the ids of those that live, and do it
    themselves. Raises JournalUnavailable where rows still wait after `within`: a writer that
    starts meanwhile is kept out of its spool so long."""
    living = []
    for folder in _folders(spool / model):
        if not any(folder.glob("*.arrows")):
            continue
        writer = JournalWriter(
            url=url,
            spool=spool,
            model=model,
            task=task,
            writer_id=folder.name,
            durability="spool",
            commit_every=within,
            commit_bytes=1 << 40,
            clock=lambda: datetime.now(UTC),
            flush_within=within,
        )
        try:
            writer.start()
        except Conflict:
            living.append(folder.name)
            continue
        writer.close()  # which stores what waits, and tries no longer than `within`
        if any(folder.glob("*.arrows")):
            raise JournalUnavailable(
                f"rows wait in {folder}, and were not stored within {within.total_seconds():g} s; "
                "the log says why. Try again when the storage is back"
            )
    return tuple(living)


def _folders(parent: Path) -> list[Path]:
    return sorted(each for each in parent.iterdir() if each.is_dir()) if parent.is_dir() else []
