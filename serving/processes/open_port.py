"""Who may reach a server that asks for no key."""

from __future__ import annotations

import logging

from homeostat.auth import Keyring, require_keys_beyond_loopback
from homeostat.errors import SettingsError
from homeostat.settings_of_serving import ServingSettings
from serving.sharing.listening import is_loopback

log = logging.getLogger(__name__)


def check_port(
    serving: ServingSettings, name: str, keys: Keyring, *, guarded: bool = False
) -> None:
    """`name`: of the model that they are the keys of; `guarded`: its callers needed one up to now.
    Raises SettingsError where others than this machine's would be asked for none, unless the
    settings say that this is meant; and where those keys are gone."""
    if guarded and not keys:
        raise SettingsError(
            f'"{name}" has no keys any more, and asks for one until a restart: put the file of its '
            "keys back, or start the server again",
            key="auth.keys_file",
        )
    if not serving.open_without_keys:
        require_keys_beyond_loopback(
            serving.host,
            keys,
            "serving",
            otherwise="; where a proxy asks who calls, say so by serving.open_without_keys = true",
        )
    elif not keys and not is_loopback(serving.host):
        log.warning(
            "%s: anybody who reaches %s may ask, label and administrate, without a key "
            "(serving.open_without_keys)",
            name,
            serving.host,
        )
