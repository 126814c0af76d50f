"""How much a request may have before its body: its URL and its headers."""

from __future__ import annotations

from collections.abc import Sequence

from serving.requests.problem import Refused

MOST_BYTES = 65_536
MOST_HEADERS = 100


def too_much(url: bytes, headers: Sequence[tuple[bytes, bytes]], unread: int) -> Refused | None:
    """What is wrong with a head, of which `unread` bytes may be in no header yet."""
    if len(url) > MOST_BYTES:
        return Refused(f"a URL may have {MOST_BYTES} bytes", status=414)
    if len(headers) > MOST_HEADERS:
        return Refused(f"a request may have {MOST_HEADERS} headers", status=431)
    if max(unread, len(url) + sum(len(name) + len(value) for name, value in headers)) > MOST_BYTES:
        return Refused(f"the URL and the headers may have {MOST_BYTES} bytes", status=431)
    return None
