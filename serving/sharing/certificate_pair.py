"""Whether two files are a certificate and its key."""

from __future__ import annotations

import ssl
from pathlib import Path

from homeostat.errors import SettingsError


def load_pair(certificate: Path, key: Path | None, *contexts: ssl.SSLContext) -> None:
    """Into these contexts, if any. Raises SettingsError, and what they had before stays."""
    try:
        # tried on another one first: half a pair would leave these without any
        for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), *contexts):
            # a password of no letters: without, one would be asked for at the terminal
            context.load_cert_chain(certificate, key, password="")
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"{certificate} and {key} are not a certificate and its key ({error}); "
            "both have to be PEM files, the key without a password",
            key="serving.tls_certificate",
        ) from None
