"""How one request's answer is written: the part of a batch that is its own -> what goes out.

Every door turns its requests into Rows and says here how their answers look, so one batch may hold
requests of all doors. Rows without a form are answered in the server's own JSON (see answering).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray


class Piece(msgspec.Struct):
    """What was answered to one request, a row an entry."""

    model: str
    version: str
    classes: tuple[str, ...]  # in the order of the probabilities; empty for numbers
    ids: Sequence[str]
    predictions: Sequence[str] | Sequence[float]
    probabilities: NDArray[np.float32] | None
    embedding: NDArray[np.float32] | None
    fallback: bool = False  # by another version than the one it should be, which fails


class Reply(msgspec.Struct):
    """A body with headers of its own; bytes alone are JSON."""

    body: bytes
    headers: Sequence[tuple[bytes, bytes]]  # all but the length


Form = Callable[[Piece], Reply | bytes]
Written = Reply | bytes


def parts_of(written: Written) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The body, and all its headers."""
    body: Any
    if isinstance(written, bytes):
        body, headers = written, [(b"content-type", b"application/json")]
    else:
        body, headers = written.body, list(written.headers)
    headers.append((b"content-length", b"%d" % len(body)))
    return body, headers
