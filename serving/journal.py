"""The prediction log of a project, as its settings say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from homeostat.identifiers import uuid7
from homeostat.jobs import write_atomically
from homeostat.journal.delta.model_log import of_model
from homeostat.journal.delta.store import DeltaStore
from homeostat.journal.encoding.recording import KEY
from homeostat.journal.encoding.recording_settings import recording_of
from homeostat.journal.reading import acceptance
from homeostat.journal.spooling.limits import Limits
from homeostat.journal.writer import JournalWriter
from homeostat.records import ModelSpec
from homeostat.settings import JournalSettings, Settings


def journal_writer(settings: Settings, environ: Mapping[str, str]) -> JournalWriter:
    """Not started yet. Raises SettingsError where the key of a hash is not to be had."""
    journal = settings.journal
    return JournalWriter(
        url=settings.journal_path,
        spool=settings.spool_path,
        model=settings.model.name,
        task=settings.model.task,
        writer_id=_writer_id(settings.home),
        durability=journal.durability,
        commit_every=journal.commit_every,
        commit_bytes=int(journal.commit_bytes),
        clock=lambda: datetime.now(UTC),
        limits=Limits(
            memory=int(journal.memory), spool=int(journal.spool), when_full=journal.when_full
        ),
        recording=recording_of(settings, environ),
    )


def unknown_names(journal: JournalSettings, features: Iterable[str]) -> str | None:
    """What to tell a person of names that hide nothing in a version's rows: who misspells one logs
    in the clear what was to stay out."""
    known = {*features, KEY}
    found = [
        f"journal.{setting}: {', '.join(unknown)}"
        for setting, names in (("redact", journal.redact), ("hash", journal.hash))
        if (unknown := sorted(set(names) - known))
    ]
    if not found:
        return None
    return (
        f"{'; '.join(found)}: no feature of the version has such a name, so nothing is hidden by "
        "it; correct the name (GET /models lists the features) or remove it"
    )


def misfit(settings: Settings, spec: ModelSpec) -> str | None:
    """What to tell a person of a version whose rows, logged as the settings are now, fit no table;
    None where they fit. Raises JournalUnavailable."""
    log = of_model(DeltaStore(), settings.journal_path, settings.model.name, settings.model.task)
    found = acceptance.misfit(log, spec, settings.journal)
    if found is None:
        return None
    return f"it answers, but is not logged, its rows are only set aside in the spool: {found}"


def _writer_id(home: Path) -> str:
    """The same after every restart: by it the journal knows what this server has stored."""
    path = home / "server-id"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        write_atomically(path, uuid7().encode())
    return path.read_text().strip()
