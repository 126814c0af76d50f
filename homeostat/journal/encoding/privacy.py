"""Values of which only a keyed hash is written down: equal stays equal, and no more is known."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from homeostat.labels import canonical

SIZE = 16  # bytes; twice as many characters
LONGEST_KEY = 64  # blake2b takes no longer one


def keyed_hash(value: Any, key: bytes) -> str | None:
    """Of the value's canonical text, so that 3, 3.0 and "3" are the same; None where it is null
    or no finite number."""
    try:
        text = canonical(value)
    except ValueError:
        return None
    return hashlib.blake2b(
        text.encode(errors="replace"), key=_fitting(key), digest_size=SIZE
    ).hexdigest()


def hashed(values: Sequence[Any], key: bytes) -> list[str | None]:
    return [keyed_hash(value, key) for value in values]


def _fitting(key: bytes) -> bytes:
    return key if len(key) <= LONGEST_KEY else hashlib.blake2b(key).digest()
