"""Which version a request goes to, while one is on trial beside the champion."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum

from homeostat.records import Rollout, TrialKind

_BUCKETS = 2**64


class Role(StrEnum):
    """What a version was to a request; the role of its rows in the prediction log."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"  # on trial, and its answers go out
    SHADOW = "shadow"  # on trial: the champion's answer went out, this one to nobody
    PREVIOUS = "previous"  # the champion before, asked for by name
    FALLBACK = "fallback"  # instead of a version that fails


def route(rollout: Rollout, key: str | None, id_hash: int) -> Role:
    """A pure function, so that all servers send the same key to the same version.

    A key stays where it is while the share holds. With a greater share some move to the version on
    trial and none away from it. Without a key chance decides: `id_hash`, see hash_of. SHADOW: the
    champion answers, and the version on trial gets a copy.
    """
    trial = rollout.trial
    if trial is None:
        return Role.CHAMPION
    place = id_hash if key is None else hash_of(key, rollout.model)
    if place >= trial.share * _BUCKETS:
        return Role.CHAMPION
    return Role.SHADOW if trial.kind is TrialKind.SHADOW else Role.CHALLENGER


def hash_of(text: str, model: str) -> int:
    """64 bits, evenly spread; another model's are others, or the same callers would always be the
    first to meet what is new."""
    person = hashlib.blake2b(model.encode(), digest_size=32).digest()
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8, key=person).digest()
    return int.from_bytes(digest, "big")


def key_of(keys: Sequence[str | None] | None) -> str | None:
    """The key of a request, which is answered by one version: its first row's that has one."""
    return next((key for key in keys if key is not None), None) if keys else None
