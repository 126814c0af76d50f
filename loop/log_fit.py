"""No version serves whose rows the prediction log could not hold: asked before a promotion."""

from __future__ import annotations

import logging

from homeostat.errors import JournalUnavailable, NotReady
from homeostat.journal.reader import Journal
from homeostat.records import VersionRef
from homeostat.registry import cache
from homeostat.settings import Settings

log = logging.getLogger(__name__)


def require_fit(settings: Settings, version: VersionRef) -> None:
    """Raises NotReady that says which columns do not fit. A version that is not in the cache, or a
    log that is away, stops nobody: the version was asked about at its gate."""
    entry = cache.entry_path(settings.cache_path, settings.model.name, version.version)
    try:
        spec = cache.read_spec(entry)
    except NotReady:
        return
    journal = Journal(settings.journal_path, settings.model.name, settings.model.task)
    try:
        misfit = journal.accepts(spec, settings.journal)
    except JournalUnavailable as problem:
        log.warning("Whether version %s fits the log is not known: %s", version.version, problem)
        return
    if misfit is not None:
        raise NotReady(misfit)
