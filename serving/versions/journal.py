"""The prediction log of a project, as its settings say."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from homeostat.errors import Conflict, JournalUnavailable
from homeostat.journal.delta.model_log import of_model
from homeostat.journal.delta.store import DeltaStore
from homeostat.journal.encoding.recording import KEY
from homeostat.journal.encoding.recording_settings import recording_of
from homeostat.journal.reading import acceptance
from homeostat.journal.spooling.limits import Limits
from homeostat.journal.writer import JournalWriter
from homeostat.records import ModelSpec
from homeostat.settings import Settings
from homeostat.settings_of_serving import JournalSettings
from serving.sharing.writer_id import writer_id

log = logging.getLogger(__name__)


def journal_writer(settings: Settings, environ: Mapping[str, str], slot: int = 0) -> JournalWriter:
    """Not started yet. Raises SettingsError where the key of a hash is not to be had. Each of
    several workers has a slot of its own; who comes after it takes over its spool."""
    journal = settings.journal
    return JournalWriter(
        url=settings.journal_path,
        spool=settings.spool_path,
        model=settings.model.name,
        task=settings.model.task,
        writer_id=writer_id(settings.home, slot),
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


def tell_misfit(settings: Settings, spec: ModelSpec) -> None:
    """Settings may have changed since the version passed its gate."""
    name, number = settings.model.name, spec.version
    try:
        problem = misfit(settings, spec)
    except JournalUnavailable as away:
        log.warning("%s: whether version %s fits the log is not known: %s", name, number, away)
        return
    if problem is not None:
        log.error("%s: version %s: %s", name, number, problem)


def store_left_behind(settings: Settings, environ: Mapping[str, str], workers: int) -> None:
    """Store what waits in the spools of workers that there are no more, since they are fewer now.
    What cannot be stored stays there; so does what another process holds."""
    own = writer_id(settings.home)
    for folder in sorted((settings.spool_path / settings.model.name).glob(f"{own}-*")):
        slot = folder.name.removeprefix(f"{own}-")
        if not slot.isdecimal() or int(slot) < workers or not any(folder.glob("*.arrows")):
            continue
        writer = journal_writer(settings, environ, slot=int(slot))
        try:
            writer.start()
        except Conflict:
            continue
        log.info("%s: storing what worker %s left in its spool", settings.model.name, slot)
        writer.close()
