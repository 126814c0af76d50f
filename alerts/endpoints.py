"""Where events may be sent, and with which secret: checked once, when the process starts.

The URLs are written by the project's owner, never by a caller, and nothing redirects us elsewhere.
So https may go to any host, private networks included (an in-house receiver is the common case,
and the certificate proves who answers), but not to link-local addresses, where clouds keep their
credentials. Plain http goes to loopback only.
"""

from __future__ import annotations

import base64
import ipaddress
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from homeostat.errors import SettingsError
from homeostat.settings import FILE_NAME, Settings
from homeostat.settings_of_the_loop import AlertSettings

SECRET_PREFIX = "whsec_"  # noqa: S105 - what a secret begins with
SECRET_BYTES = range(24, 65)
LONGEST_URL = 512  # the width of the state database's column
MAKE_ONE = "make one with `python -m alerts secret`"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One receiver of events."""

    url: str
    secrets: tuple[str, ...] = field(repr=False)  # several while a secret is being changed
    events: tuple[str, ...] = ()  # patterns of types; empty: the ones for people

    @property
    def name(self) -> str:
        """For logs: paths and queries of webhooks often hold a token."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def loopback(self) -> bool:
        return _is_loopback(urlsplit(self.url))


def load_endpoints(settings: Settings, environ: Mapping[str, str]) -> tuple[Endpoint, ...]:
    """The project's receivers with their secrets. Raises SettingsError, never showing a secret."""
    file = str(settings.project / FILE_NAME)
    endpoints: list[Endpoint] = []
    for number, alert in enumerate(settings.alerts):
        key = f"alerts[{number}]"
        check_url(alert.url, file=file, key=f"{key}.url")
        if alert.url in (endpoint.url for endpoint in endpoints):
            raise SettingsError(
                "the same url twice: give one section all the patterns", file=file, key=f"{key}.url"
            )
        found = _secrets(alert, environ, file=file, key=key)
        endpoints.append(Endpoint(url=alert.url, secrets=found, events=alert.events))
    return tuple(endpoints)


def new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def check_url(url: str, *, file: str = "", key: str = "") -> None:
    """Raises SettingsError for a URL that nothing may be sent to."""

    def fail(message: str) -> SettingsError:
        return SettingsError(message, file=file, key=key)

    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise fail(f"not a URL: {error}") from None
    if parts.scheme not in ("https", "http") or not host:
        raise fail('an address such as "https://hooks.example.org/ml"')
    if len(url) > LONGEST_URL:
        raise fail(f"longer than {LONGEST_URL} characters")
    if parts.username is not None or parts.password is not None:
        raise fail("no name or password in the address: receivers check the signature instead")
    if parts.scheme == "http" and not _is_loopback(parts):
        raise fail(f'use https: over http anybody on the way to "{host}" could read the event')
    address = _address(host)
    if address is not None and (address.is_link_local or address.is_multicast):
        raise fail(f'"{host}" is a link-local or multicast address; no receiver lives there')


def check_secret(secret: str, *, file: str = "", key: str = "") -> None:
    """Raises SettingsError unless it is `whsec_` and base64 of 24 to 64 bytes."""
    try:
        if not secret.startswith(SECRET_PREFIX):
            raise ValueError
        length = len(base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True))
        if length not in SECRET_BYTES:
            raise ValueError
    except ValueError:
        raise SettingsError(
            f'not a signing secret: "{SECRET_PREFIX}" and then {SECRET_BYTES.start} to '
            f"{SECRET_BYTES.stop - 1} bytes in base64; {MAKE_ONE}",
            file=file,
            key=key,
        ) from None


def _secrets(
    alert: AlertSettings, environ: Mapping[str, str], *, file: str, key: str
) -> tuple[str, ...]:
    if alert.secret_env:
        text, where = environ.get(alert.secret_env, ""), f"variable {alert.secret_env}"
        name = f"{key}.secret_env"
    elif alert.secret_file:
        name, where = f"{key}.secret_file", f"file {alert.secret_file}"
        try:
            text = alert.secret_file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"cannot read the {where}: {error}", file=file, key=name) from None
    else:
        raise SettingsError(
            "no signing secret: name the variable that holds it (secret_env) or a file "
            f"(secret_file); {MAKE_ONE}",
            file=file,
            key=key,
        )
    found: Sequence[str] = text.split()
    if not found:
        raise SettingsError(
            f"the {where} is empty or not set: put the receiver's signing secret there; {MAKE_ONE}",
            file=file,
            key=name,
        )
    for secret in found:
        check_secret(secret, file=file, key=name)
    return tuple(found)


def _is_loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    address = _address(host)
    return address.is_loopback if address is not None else host == "localhost"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
