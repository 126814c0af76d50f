"""An event as a signed request: body and headers of Standard Webhooks 1.0."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from standardwebhooks import Webhook

from alerts.endpoints import Endpoint
from homeostat.records import Event

LARGEST_BODY = 20_000  # the standard asks for less than 20 kB
# How long texts and lists may be; the next pair is taken while the body is too large.
LIMITS: tuple[tuple[int, int], ...] = ((8000, 500), (3000, 100), (800, 25), (200, 5))


def body(event: Event) -> bytes:
    """The JSON a receiver gets. What is too long is cut, with a mark; never dropped silently."""
    about = {"model": event.model, "event_id": event.event_id}
    encoded = _encode(event, {**event.data, **about})
    for text, items in LIMITS:
        if len(encoded) < LARGEST_BODY:
            return encoded
        encoded = _encode(event, {**_cut(dict(event.data), text, items), **about})
    if len(encoded) < LARGEST_BODY:
        return encoded
    return _encode(event, {**about, "cut": "the event's data are too large for a webhook"})


def headers(endpoint: Endpoint, event_id: str, content: bytes, now: datetime) -> dict[str, str]:
    """One signature a secret, so that a receiver may change its secret without losing events."""
    now = now.astimezone(UTC)  # the library takes whatever zone it gets for UTC
    text = content.decode()
    signatures = (Webhook(secret).sign(event_id, now, text) for secret in endpoint.secrets)
    return {
        "content-type": "application/json",
        "user-agent": "homeostat",
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _encode(event: Event, data: Mapping[str, Any]) -> bytes:
    timestamp = event.time.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return msgspec.json.encode({"type": event.type, "timestamp": timestamp, "data": data})


def _cut(value: Any, text: int, items: int) -> Any:
    if isinstance(value, str) and len(value) > text:
        # of a program's output the end says most, of other texts the beginning
        head, tail = value[: text // 4], value[-(text - text // 4) :]
        return f"{head} … [{len(value) - text} characters cut] … {tail}"
    if isinstance(value, Mapping):
        return {key: _cut(item, text, items) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        kept = [_cut(item, text, items) for item in value[:items]]
        return [*kept, f"… [{len(value) - items} more]"] if len(value) > items else kept
    return value
