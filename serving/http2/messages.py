"""gRPC's messages: five bytes of prefix, then the message, compressed where the prefix says so."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

from homeostat.errors import HomeostatError

PREFIX = 5
INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, PERMISSION_DENIED = 3, 4, 5, 7
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 8, 12, 13, 14, 16
_PREFIX = struct.Struct(">BI")
# what zlib has to be told: gzip has a head of its own
_BITS = {b"gzip": 31, b"deflate": 15}


class Refused(HomeostatError):
    """A call that is answered by a status alone, one of gRPC's; `status`: HTTP's, of which there
    are more."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def wrapped(message: bytes) -> bytes:
    return _PREFIX.pack(0, len(message)) + message


def unwrapped(data: bytes, headers: Mapping[bytes, bytes], limit: int) -> bytes:
    """The one message of a unary call; raises Refused."""
    if len(data) < PREFIX:
        raise Refused(INVALID_ARGUMENT, "the call has no message")
    compressed, size = _PREFIX.unpack_from(data)
    if len(data) != PREFIX + size:
        raise Refused(INVALID_ARGUMENT, "the call has not exactly one message")
    message = data[PREFIX:]
    return message if not compressed else _inflated(message, headers, limit)


def too_large(limit: int) -> Refused:
    return Refused(RESOURCE_EXHAUSTED, f"a message may have {limit} bytes (serving.max_body)", 413)


def too_much() -> Refused:
    message = "too many messages of this connection are not whole yet"
    return Refused(RESOURCE_EXHAUSTED, message, 429)


def too_many() -> Refused:
    return Refused(RESOURCE_EXHAUSTED, "too many calls of this connection are open", 429)


def too_slow(seconds: float) -> Refused:
    message = f"the message took over {seconds:g} s to arrive (serving.arrive_within)"
    return Refused(DEADLINE_EXCEEDED, message, 408)


def _inflated(message: bytes, headers: Mapping[bytes, bytes], limit: int) -> bytes:
    encoding = headers.get(b"grpc-encoding", b"identity")
    bits = _BITS.get(encoding)
    if bits is None:
        said = f"messages compressed by {encoding!r} are not read here"
        raise Refused(UNIMPLEMENTED, said, 415)
    try:
        inflate = zlib.decompressobj(bits)
        found = inflate.decompress(message, limit + 1)
    except zlib.error as error:
        raise Refused(INVALID_ARGUMENT, f"the message cannot be decompressed: {error}") from None
    if len(found) > limit:
        raise too_large(limit)
    return found
