"""Asking our own server something, where one runs on this machine."""

from __future__ import annotations

import logging
import ssl
from typing import Any

import httpx
import msgspec

from homeostat.settings import Settings

log = logging.getLogger(__name__)


def server_url(settings: Settings) -> str | None:
    """Where the server of this project listens, as it wrote down itself."""
    try:
        return str(msgspec.json.decode((settings.home / "serving.json").read_bytes())["url"])
    except (FileNotFoundError, msgspec.DecodeError, KeyError):
        return None


def trusting(settings: Settings) -> ssl.SSLContext | bool:
    """What to verify the server by: its own certificate, whoever signed it and for whatever name,
    since it is asked on this machine."""
    certificate = settings.serving.tls_certificate
    if certificate is None:
        return True
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def about_model(settings: Settings) -> dict[str, Any] | None:
    """What the server says of the model it serves; None where nobody answered, or a key is asked
    for."""
    url = server_url(settings)
    if url is None:
        return None
    try:
        answer = httpx.get(f"{url}/models", timeout=5, verify=trusting(settings))
        found = answer.json()["models"] if answer.is_success else ()
    except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
        log.debug("The server at %s did not answer: %s", url, error)
        return None
    return next((each for each in found if each["name"] == settings.model.name), None)


def serving_version(settings: Settings) -> str | None:
    """That the server answers by, as it tells everybody; None where it has none yet, or is away."""
    url = server_url(settings)
    if url is None:
        return None
    try:
        answer = httpx.get(f"{url}/health/ready", timeout=2, verify=trusting(settings))
        return str(answer.json()["models"][settings.model.name]) if answer.is_success else None
    except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
        log.debug("The server at %s did not answer: %s", url, error)
        return None


def flush_journal(settings: Settings) -> bool:
    """Have the newest rows committed before a check reads them.

    False when nobody answered, or a key is asked for: the check then sees rows that are up to
    [journal] commit_every old, which is no harm.
    """
    url = server_url(settings)
    if url is None:
        return False
    try:
        answer = httpx.post(
            f"{url}/models/{settings.model.name}/flush", timeout=5, verify=trusting(settings)
        )
        return answer.is_success
    except (httpx.HTTPError, OSError) as error:
        log.debug("The server at %s did not flush its journal: %s", url, error)
        return False
