"""A body that could not be read as what its door takes, and what its headers tell of why.

The headers are looked at only then: they cost what can be read nothing, and many programs (curl,
for one) name a type that is not the body's.
"""

from __future__ import annotations

from typing import TypeVar

from serving.requests.door import Headers
from serving.requests.problem import Refused

E = TypeVar("E", bound=BaseException)

JSON = "application/json"
CURLS = "application/x-www-form-urlencoded"  # whatever it sends, unless it is told otherwise
SHOWN = 80  # characters of a header that an error repeats


class Unreadable(Refused):
    """It is not of the kind, a content type, that it was read as."""

    def __init__(self, message: str, kind: str = JSON) -> None:
        super().__init__(message, status=400)
        self.kind = kind


def explained(error: E, headers: Headers) -> E | Refused:
    """The error that its caller is told of: one of the headers (415), where they say why."""
    if not isinstance(error, Unreadable):
        return error
    said = {name: value.decode("latin-1").strip().lower() for name, value in headers}
    encoding = said.get(b"content-encoding", "") or "identity"
    if encoding != "identity":
        return Refused(
            f"send the body as it is, not compressed (content-encoding: {encoding[:SHOWN]})",
            status=415,
        )
    kind = said.get(b"content-type", "").partition(";")[0].strip()
    as_read = kind in (error.kind, CURLS) or kind.endswith("+json")
    # what is an image shows in its first bytes: this is none
    if kind and not as_read and not kind.startswith("image/"):
        return Refused(f"send {error.kind}, not {kind[:SHOWN]}: {error}", status=415)
    return error
