"""When a failed delivery is tried again: the schedule of Standard Webhooks 1.0."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

# Before the second attempt, the third …; ten attempts in all, over about three days.
DELAYS: tuple[timedelta, ...] = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
JITTER = 0.2  # up to so much longer, so that receivers are not hit by everybody at once
LONGEST = timedelta(hours=24)
GONE = 410


def accepted(status: int) -> bool:
    """Only a 2xx is an acknowledgement: a redirect could lead anywhere, so it is a failure."""
    return 200 <= status < 300


def wait(attempts: int, *, random: float, retry_after: timedelta | None = None) -> timedelta | None:
    """How long after the so-manieth failed attempt; None: there is no next one.

    `random` is drawn from [0, 1). A receiver's Retry-After may lengthen the wait, up to a day.
    """
    if attempts > len(DELAYS):
        return None
    delay = DELAYS[attempts - 1] * (1 + JITTER * random)
    return max(delay, min(retry_after or timedelta(0), LONGEST))


def rest(failures: int) -> timedelta:
    """How long an endpoint is left alone after so many failures in a row, whatever the event."""
    return min(DELAYS[0] * float(2 ** min(failures - 1, 10)), DELAYS[1])


def parse_retry_after(text: str | None, now: datetime) -> timedelta | None:
    """Seconds or an HTTP date; None for anything else: a receiver's mistake costs nothing."""
    if not text:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return min(timedelta(seconds=int(text.strip()[:9])), LONGEST)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(timedelta(0), min(until - now, LONGEST))
