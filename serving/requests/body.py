"""Read a request's body under a limit that holds while it streams, and know its caller's key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from serving.requests.problem import Refused, TooLarge
from serving.requests.rows import shown

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Gone(Exception):
    """The caller hung up before the request was complete."""


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body; raises TooLarge past `limit` bytes, Gone when the caller hangs up.

    Of a body that is too large, up to `limit` further bytes are read and dropped: many clients
    look at the answer only once they have sent everything.
    """
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body", False):
        if len(body) > limit:
            raise too_large(limit)
        return body
    parts, size = [body], len(body)
    while message["type"] == "http.request" and message.get("more_body", False):
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size <= limit:
            parts.append(part)
        elif size > 2 * limit:
            raise too_large(limit)
    if message["type"] != "http.request":
        raise Gone
    if size > limit:
        raise too_large(limit)
    return b"".join(parts)


def check_length(headers: Iterable[tuple[bytes, bytes]], limit: int) -> None:
    """Refuse by the announced length, before a byte is read, what would not be read to its end."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value) > 2 * limit:
            raise too_large(limit)


def too_large(limit: int) -> Refused:
    return TooLarge(f"a request's body may have {limit} bytes (serving.max_body)")


def too_many_rows(count: int, most: float) -> TooLarge:
    return TooLarge(f"{shown(count)} rows in one request; at most {most} (serving.max_queued_rows)")


def check_rows(count: int, most: float) -> None:
    """Asked as soon as their number is known, before they are looked at; raises TooLarge."""
    if count > most:
        raise too_many_rows(count, most)


def authorization(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        if name == b"authorization":
            return value.decode("latin-1")
    return None
