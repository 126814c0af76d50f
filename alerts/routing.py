"""Which endpoints hear of an event."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from alerts.endpoints import Endpoint
from homeostat.events import FOR_PEOPLE


def wants(patterns: Iterable[str], event_type: str) -> bool:
    """Whether any of the patterns names the type; no patterns: what people want to hear of."""
    return any(fnmatchcase(event_type, pattern) for pattern in tuple(patterns) or FOR_PEOPLE)


def receivers(event_type: str, endpoints: Iterable[Endpoint]) -> list[str]:
    """URLs, which are what endpoints are known by in the state database."""
    return [endpoint.url for endpoint in endpoints if wants(endpoint.events, event_type)]
