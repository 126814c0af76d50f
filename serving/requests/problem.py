"""What a caller is told when a request is refused: application/problem+json (RFC 9457)."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from homeostat.errors import (
    AuthError,
    HomeostatError,
    InputError,
    JournalFull,
    JournalUnavailable,
    ModelError,
    NotReady,
    Unavailable,
)

CONTENT_TYPE = "application/problem+json"
MAX_FIELD = 200
RETRY_AFTER = 1  # seconds: long enough to let a queue shrink or a version load


class Refused(HomeostatError):
    """A request the server will not take; the status says whose turn it is to change something."""

    def __init__(self, message: str, *, status: int, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Overloaded(Refused):
    """More rows wait for the model than the settings allow."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=503, retry_after=RETRY_AFTER)


class Overdue(Refused):
    """The caller's time, or that of the settings, was over before its turn came."""

    def __init__(self, before: str) -> None:
        super().__init__(
            f"its time was over before {before}; it is what x-request-timeout says (over gRPC "
            "grpc-timeout), and otherwise serving.deadline",
            status=504,
        )


class TooLarge(Refused):
    """The body, or its number of rows, is more than the settings allow."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=413)


@dataclass(frozen=True, kw_only=True)
class Problem:
    status: int
    kind: str
    detail: str
    row: int | None = None
    field: str | None = None
    retry_after: int | None = None

    def body(self) -> bytes:
        return msgspec.json.encode(
            {
                "type": f"urn:homeostat:problem:{self.kind}",
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "detail": _clean(self.detail),
                "row": self.row,
                "field": None if self.field is None else _clean(self.field[:MAX_FIELD]),
            }
        )

    def text(self) -> str:
        """What is wrong, for answers of another form."""
        return _clean(self.detail)

    def headers(self) -> dict[str, str]:
        headers = {"content-type": CONTENT_TYPE}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["www-authenticate"] = "Bearer"
        if self.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            headers["connection"] = "close"  # the rest of the body is not read
        return headers


UNEXPECTED = Problem(status=500, kind="internal", detail="unexpected; see the server's log")


def problem_of(error: BaseException) -> Problem:
    """The answer an error deserves; anything not known here is our fault, a 500."""
    if not isinstance(error, HomeostatError):
        return UNEXPECTED
    status, kind = 500, "internal"
    row, field, retry_after = None, None, None
    match error:
        case InputError():
            status, kind, row, field = 422, "invalid-input", error.row, error.field
        case Refused():
            status, kind, retry_after = error.status, kind_of(error.status), error.retry_after
        case AuthError():
            status, kind = error.status, kind_of(error.status)
        case NotReady():
            status, kind, retry_after = 503, "not-ready", RETRY_AFTER
        case JournalFull():
            status, kind, retry_after = 503, "journal-full", RETRY_AFTER
        case JournalUnavailable():
            status, kind, retry_after = 503, "journal-unavailable", RETRY_AFTER
        case Unavailable():
            status, kind, retry_after = 503, "unavailable", RETRY_AFTER
        case ModelError():
            kind = "model-failed"
    return Problem(
        status=status,
        kind=kind,
        detail=str(error),
        row=row,
        field=field,
        retry_after=retry_after,
    )


def _clean(text: str) -> str:
    """A caller's member name may hold half a surrogate pair, which no JSON may."""
    return text.encode("utf-8", "replace").decode()


def kind_of(status: int) -> str:
    return HTTPStatus(status).phrase.lower().replace(" ", "-")
