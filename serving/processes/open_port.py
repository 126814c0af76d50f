"""Who may reach a server that asks for no key."""

from __future__ import annotations

import logging

from homeostat.auth import Keyring, require_keys_beyond_loopback
from homeostat.settings_of_serving import ServingSettings
from serving.sharing.listening import is_loopback

log = logging.getLogger(__name__)


def check_port(serving: ServingSettings, name: str, keys: Keyring) -> None:
    """`name`: of the model that they are the keys of. Raises SettingsError where others than this
    machine's would be asked for none, unless the settings say that this is meant."""
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
