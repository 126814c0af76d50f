"""Keys with scopes, shared by server, hooks and console. Only hashes are ever stored."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import math
import secrets
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from homeostat.errors import AuthError, SettingsError

KEY_PREFIX = "hsk_"


class Scope(StrEnum):
    PREDICT = "predict"
    LABEL = "label"
    ADMIN = "admin"  # includes the others


@dataclass(frozen=True)
class Limit:
    """How many rows may be predicted with a key."""

    rows_per_second: float
    burst: float  # at once, after a pause


@dataclass(frozen=True)
class Key:
    name: str
    sha256: str
    scopes: frozenset[Scope]
    limit: Limit | None = None


Charge = Callable[[int], None]  # with a number of rows; raises where they are too many
Meter = Callable[[Key, int], None]


class Keyring:
    """The keys of one process. Without any, every caller may do everything: loopback only."""

    def __init__(self, keys: tuple[Key, ...] = (), meter: Meter | None = None) -> None:
        """`meter` is told of the rows of keys that have a limit."""
        self.keys = keys
        limited = [] if meter is None else [key for key in keys if key.limit is not None]
        self._limited = {key.name: key for key in limited}
        self._meter = meter

    def __bool__(self) -> bool:
        return bool(self.keys)

    def allow(self, authorization: str | None, scope: Scope) -> str:
        """The name of the caller's key; raises AuthError. Takes the header `Bearer hsk_…`."""
        if not self.keys:
            return ""
        kind, _, token = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise AuthError("send the header `Authorization: Bearer KEY`", status=401)
        digest = hash_key(token.strip())
        found = None
        for key in self.keys:  # every key is compared, so that time tells nothing
            if hmac.compare_digest(key.sha256, digest):
                found = key
        if found is None:
            raise AuthError("unknown key", status=401)
        if scope not in found.scopes and Scope.ADMIN not in found.scopes:
            raise AuthError(f'key "{found.name}" lacks the scope "{scope}"', status=403)
        return found.name

    def charge_for(self, name: str) -> Charge | None:
        """What to call with the number of rows that somebody with that key asks for; None where
        nobody counts them."""
        if name not in self._limited or self._meter is None:
            return None
        return partial(self._meter, self._limited[name])


def hash_key(token: str) -> str:
    """A plain hash is enough: keys are 256 random bits, not passwords."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_key(name: str, scopes: frozenset[Scope], limit: Limit | None = None) -> tuple[str, Key]:
    """The secret, shown once, and what may be stored."""
    token = KEY_PREFIX + secrets.token_urlsafe(32)
    return token, Key(name, hash_key(token), scopes, limit)


def load_keys(path: Path, meter: Meter | None = None) -> Keyring:
    """The keys in a file of [[keys]] sections; no file, no keys. Raises SettingsError."""
    try:
        entries = tomllib.loads(path.read_text()).get("keys", [])
        return Keyring(
            tuple(
                Key(e["name"], e["sha256"], frozenset(Scope(s) for s in e["scopes"]), _limit(e))
                for e in entries
            ),
            meter,
        )
    except FileNotFoundError:
        return Keyring()
    except OSError as error:
        raise SettingsError(
            f"cannot be read ({error.strerror}); put a file there that this process may read",
            file=str(path),
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f"not a file of keys ({error}); add keys with `homeostat keys new`", file=str(path)
        ) from None


def _limit(entry: Mapping[str, Any]) -> Limit | None:
    """Raises ValueError, TypeError."""
    if "rows_per_second" not in entry:
        if "burst" in entry:
            raise ValueError("burst needs rows_per_second")
        return None
    rate = float(entry["rows_per_second"])
    burst = float(entry.get("burst", max(rate, 1.0)))
    if not (0 < rate < math.inf and 1 <= burst < math.inf):
        raise ValueError("rows_per_second has to be above 0, and burst at least 1")
    return Limit(rate, burst)


def add_key(path: Path, key: Key) -> None:
    if any(known.name == key.name for known in load_keys(path).keys):
        raise SettingsError(f'a key named "{key.name}" exists already', file=str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    with path.open("a") as file:
        file.write(_section(key))


def remove_key(path: Path, name: str) -> None:
    """Not the last one: with no key at all, everybody may ask."""
    keys = load_keys(path).keys
    left = [key for key in keys if key.name != name]
    if len(left) == len(keys):
        names = ", ".join(key.name for key in keys) or "none"
        raise SettingsError(f'no key is named "{name}"; there are: {names}', file=str(path))
    if not left:
        raise SettingsError(
            f'"{name}" is the only key, and without any everybody may ask: make another one first, '
            "or delete this file and start again what runs",
            file=str(path),
        )
    partial = path.with_name(f".{path.name}.part")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text("".join(map(_section, left)))
    partial.replace(path)


def _section(key: Key) -> str:
    name = json.dumps(key.name, ensure_ascii=False)  # a JSON string is one in TOML too
    scopes = ", ".join(f'"{scope}"' for scope in sorted(key.scopes))
    text = f'[[keys]]\nname = {name}\nsha256 = "{key.sha256}"\nscopes = [{scopes}]\n'
    if key.limit is not None:
        rate, burst = key.limit.rows_per_second, key.limit.burst
        text += f"rows_per_second = {rate!r}\nburst = {burst!r}\n"
    return text


def require_keys_beyond_loopback(
    host: str, keys: Keyring, section: str, otherwise: str = ""
) -> None:
    """Refuse to listen where others can reach us, unless callers must show a key. `otherwise`: what
    else can be done about it."""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and not keys:
        raise SettingsError(
            f'"{host}" can be reached from outside and there are no keys; '
            "make one with `homeostat keys new NAME --scope predict`, or use 127.0.0.1" + otherwise,
            key=f"{section}.host",
        )
