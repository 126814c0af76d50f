"""No version serves whose rows the prediction log could not hold: asked before a promotion, and of
the version that serves when the loop starts, since settings may have changed under it."""

from __future__ import annotations

import logging
from datetime import datetime

from homeostat import events as types
from homeostat.errors import JournalUnavailable, NotReady
from homeostat.journal.reader import Journal
from homeostat.records import VersionRef
from homeostat.registry import cache
from homeostat.settings import Settings
from homeostat.state import events
from loop.context import Context

log = logging.getLogger(__name__)


def require_fit(settings: Settings, version: VersionRef) -> None:
    """Raises NotReady that says which columns do not fit. A version that is not in the cache, or a
    log that is away, stops nobody: the version was asked about at its gate."""
    journal = Journal(settings.journal_path, settings.model.name, settings.model.task)
    try:
        misfit = _misfit(settings, journal, version)
    except NotReady:
        return
    except JournalUnavailable as problem:
        log.warning("Whether version %s fits the log is not known: %s", version.version, problem)
        return
    if misfit is not None:
        raise NotReady(misfit)


def tell_misfit(context: Context, version: VersionRef, now: datetime) -> bool:
    """Say it where rows of the version that serves, logged as the settings are now, fit no table;
    False where that cannot be known yet."""
    try:
        misfit = context.reach(
            "journal", lambda: _misfit(context.settings, context.journal, version)
        )
    except NotReady:
        return False
    if misfit is not None:
        log.error("The version that serves is not logged: %s", misfit)
        with context.state.begin() as tx:
            events.record(
                tx, types.LOG_MISFIT, context.model, now, version=version.version, reason=misfit
            )
    return True


def tell_refused(context: Context, version: VersionRef, reason: str, now: datetime) -> None:
    """That an alias is not followed: once, though it is looked at again and again."""
    about = (types.MODEL_REFUSED, types.MODEL_ADOPTED, types.MODEL_PROMOTED)
    with context.state.begin() as tx:
        last = events.last(tx, context.model, about)
        if last and (last.type, last.data.get("version")) == (about[0], version.version):
            return
        events.record(
            tx, types.MODEL_REFUSED, context.model, now, version=version.version, reason=reason
        )


def _misfit(settings: Settings, journal: Journal, version: VersionRef) -> str | None:
    """NotReady where the version is not in the cache."""
    entry = cache.entry_path(settings.cache_path, settings.model.name, version.version)
    return journal.accepts(cache.read_spec(entry), settings.journal)
