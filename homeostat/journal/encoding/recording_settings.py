"""What of a prediction is written down, as a project's settings say."""

from __future__ import annotations

from collections.abc import Mapping

from homeostat.journal.encoding.hash_key import read_hash_key
from homeostat.journal.encoding.recording import Recording
from homeostat.settings import Settings


def recording_of(settings: Settings, environ: Mapping[str, str]) -> Recording:
    """Raises SettingsError where the key of a hash is not to be had."""
    journal = settings.journal
    return Recording(
        sample=journal.sample,
        inputs=journal.inputs,
        redact=frozenset(journal.redact),
        hash=frozenset(journal.hash),
        hash_key=read_hash_key(settings, environ) or b"",
    )
