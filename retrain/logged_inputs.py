"""Rows can only be trained on where the log holds their inputs, all of them and as they were."""

from __future__ import annotations

import logging
from typing import Any

import pyarrow.compute as pc

from homeostat.errors import NotReady
from homeostat.settings_of_serving import JournalSettings

logger = logging.getLogger(__name__)


def require_inputs(
    journal: JournalSettings, names: tuple[str, ...], features: tuple[str, ...]
) -> None:
    """Only rows that were logged in full can be trained on."""
    if journal.inputs != "full":
        raise NotReady(
            f"there is nothing new to train on: the log holds no inputs ([journal] inputs = "
            f'"{journal.inputs}"). Set it to "full"; rows logged from then on can train'
        )
    for setting, hidden in (("redact", journal.redact), ("hash", journal.hash)):
        lacking = [name for name in hidden if name in names or name in features]
        if lacking:
            raise NotReady(
                f"there is nothing new to train on: the model takes {', '.join(lacking)}, which "
                f"the log does not hold ([journal] {setting}). Take it out of there, or train a "
                "model that does without"
            )


def with_inputs(window: Any, names: tuple[str, ...]) -> Any:
    """Without rows that were logged when the settings kept their inputs out of the log."""
    if not names or not len(window):
        return window
    known = window[names[0]].is_valid()
    for name in names[1:]:
        known = pc.or_(known, window[name].is_valid())
    kept = window.filter(known)
    if len(kept) < len(window):
        logger.warning("%s rows were logged without their inputs", len(window) - len(kept))
    return kept
