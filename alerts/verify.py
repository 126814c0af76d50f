"""For receivers: is this request really from the platform that holds the secret?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from standardwebhooks import Webhook

from homeostat.errors import AuthError


def verify(headers: Mapping[str, str], body: bytes, secret: str) -> dict[str, Any]:
    """The message; raises AuthError for whatever is wrong with it. Answer that with a 401.

    Deliveries come at least once: remember `webhook-id` (also `data.event_id`) and leave out what
    you have seen.
    """
    try:
        message = Webhook(secret).verify(body, dict(headers))
        if isinstance(message, dict):
            return message
        reason = "not a JSON object"
    except Exception as error:  # noqa: BLE001 - malformed headers raise ValueError and more
        reason = str(error) or type(error).__name__
    raise AuthError(f"not a message signed with this secret: {reason}", status=401)
