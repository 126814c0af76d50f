"""Durations, rates and sizes in words: "5m", "1h30m", "1 per 30d", "64MB"."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import timedelta

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])")
_SIZES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}


@dataclass(frozen=True)
class Rate:
    """So many in so long, such as one false alarm in thirty days."""

    count: float
    per: timedelta

    def probability(self, every: timedelta) -> float:
        """The chance allowed to each of the trials that happen once `every`."""
        return min(1.0, self.count * (every / self.per))

    def __str__(self) -> str:
        return f"{self.count:g} per {format_duration(self.per)}"


def parse_duration(text: str) -> timedelta:
    cleaned = text.strip().lower()
    position, duration = 0, timedelta(0)
    try:
        while match := _PART.match(cleaned, position):
            duration += timedelta(seconds=float(match[1]) * _UNITS[match[2]])
            position = match.end()
            while position < len(cleaned) and cleaned[position] == " ":
                position += 1
    except OverflowError:
        raise ValueError(
            f'a duration of less than {timedelta.max.days} days, not "{text}"'
        ) from None
    if not cleaned or position != len(cleaned):
        raise ValueError(f'a duration such as "30s", "5m", "1h30m" or "7d", not "{text}"')
    return duration


def format_duration(duration: timedelta) -> str:
    """The shortest words; parse_duration reads the same duration from them."""
    if duration < timedelta(seconds=1):
        return f"{duration / timedelta(milliseconds=1):g}ms"
    parts = []
    for unit in ("d", "h", "m"):
        count, duration = divmod(duration, timedelta(seconds=_UNITS[unit]))
        if count:
            parts.append(f"{count}{unit}")
    if duration or not parts:
        parts.append(f"{duration.total_seconds():.6f}".rstrip("0").rstrip(".") + "s")
    return "".join(parts)


def parse_rate(text: str) -> Rate:
    count, separator, period = text.strip().partition(" per ")
    try:
        if not separator:
            raise ValueError
        period = period.strip()
        rate = Rate(float(count), parse_duration(period if period[:1].isdigit() else f"1{period}"))
    except ValueError:
        raise ValueError(f'a rate such as "1 per 30d" or "2 per d", not "{text}"') from None
    if not 0 < rate.count < math.inf or rate.per <= timedelta(0):
        raise ValueError(f'a rate above zero, not "{text}"')
    return rate


class Size(int):
    """A number of bytes."""


def parse_size(text: str) -> Size:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(b|kb|mb|gb)", text.strip().lower())
    if not match:
        raise ValueError(f'a size such as "64MB" or "2GB", not "{text}"')
    return Size(float(match[1]) * _SIZES[match[2]])


def format_size(size: int) -> str:
    """In the largest unit that says it exactly."""
    name = max((n for n, unit in _SIZES.items() if size % unit == 0), key=_SIZES.__getitem__)
    return f"{size // _SIZES[name]}{name.upper()}"
