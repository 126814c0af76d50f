"""What a request says besides its rows: who asks, and until when an answer is of use."""

from __future__ import annotations

import math
import re
from asyncio import get_running_loop
from typing import NamedTuple

from homeostat.auth import Charge, Keyring, Scope
from serving.requests.body import too_large
from serving.requests.door import Headers
from serving.requests.problem import Refused

LONGEST = 86_400.0  # seconds that a caller may ask for
_GRPC_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


class Asked(NamedTuple):
    """`caller`: its key's name; those without are one caller. But where their door can tell their
    connections apart, these take turns: anybody may open as many as he likes, so that none of them
    has a share of its own of a queue that is full."""

    caller: str = ""
    until: float = math.inf  # by the event loop's clock
    charge: Charge | None = None  # of a key with a limit, to be told how many rows they are
    connection: str = ""

    @property
    def whose(self) -> str:
        """Who takes turns with others."""
        return self.caller or self.connection


def asked_of(headers: Headers, keys: Keyring, limit: int, deadline: float) -> Asked | None:
    """None where there is nothing to say; raises AuthError, TooLarge, Refused (400).

    `deadline`: seconds for those who do not say; 0 for none.
    """
    said = dict(headers)
    length = said.get(b"content-length")
    if length is not None and length.isdigit() and int(length) > 2 * limit:
        raise too_large(limit)
    timeout, caller = said.get(b"x-request-timeout"), ""
    if keys:
        caller = keys.allow(said.get(b"authorization", b"").decode("latin-1"), Scope.PREDICT)
    if timeout is None and not (deadline or caller):
        return None
    seconds = deadline if timeout is None else seconds_of(timeout)
    until = get_running_loop().time() + seconds if seconds else math.inf
    return Asked(caller, until, keys.charge_for(caller) if caller else None)


def seconds_of(timeout: bytes) -> float:
    try:
        seconds = float(timeout)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST:
        raise Refused(
            f"x-request-timeout is a number of seconds above 0 and up to {LONGEST:g}", status=400
        )
    return seconds


def seconds_of_grpc(timeout: bytes) -> float:
    """The header grpc-timeout; 0 where the time was over when the call left."""
    found = _GRPC_TIMEOUT.fullmatch(timeout)
    if found is None:
        raise Refused(
            "grpc-timeout is a number of up to 8 digits and one of H, M, S, m, u and n", status=400
        )
    return int(found[1]) * _UNITS[found[2]]
