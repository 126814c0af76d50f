"""The secret behind `journal.hash`: from the environment or a file, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

from homeostat.errors import SettingsError
from homeostat.settings import FILE_NAME, Settings

LENGTHS = range(16, 65)  # bytes; shorter ones can be guessed, longer ones the hash does not take
MAKE_ONE = "`openssl rand -hex 32` makes one"


def read_hash_key(settings: Settings, environ: Mapping[str, str]) -> bytes | None:
    """None where nothing is hashed. Raises SettingsError that says where the key should be.

    Who looks for rows by a hashed value needs the same key: keep it, and keep it apart.
    """
    journal = settings.journal
    if not journal.hash:
        return None
    if journal.hash_key_env:
        name, where = "journal.hash_key_env", f"variable {journal.hash_key_env}"
        text = environ.get(journal.hash_key_env, "")
    elif journal.hash_key_file:
        name, where = "journal.hash_key_file", f"file {journal.hash_key_file}"
        try:
            text = journal.hash_key_file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise _error(settings, name, f"cannot read the {where}: {error}") from None
    else:
        raise _error(settings, "journal.hash", "needs journal.hash_key_env or hash_key_file")
    key = text.strip().encode(errors="surrogateescape")
    if not key:
        message = f"the {where} is empty or not set: put the key of the hash there; {MAKE_ONE}"
        raise _error(settings, name, message)
    if len(key) not in LENGTHS:
        length = f"{LENGTHS.start} to {LENGTHS.stop - 1} bytes"
        message = f"the key in the {where} has {len(key)} bytes, it needs {length}; {MAKE_ONE}"
        raise _error(settings, name, message)
    return key


def _error(settings: Settings, key: str, message: str) -> SettingsError:
    return SettingsError(message, file=str(settings.project / FILE_NAME), key=key)
