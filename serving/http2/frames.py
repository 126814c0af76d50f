"""HTTP/2's frames as bytes (RFC 9113): what a server of unary calls needs of them."""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = 9  # bytes before a frame's payload
LARGEST = 16_384  # payload of a frame, unless the other side allows more
WINDOW = 65_535  # bytes that may be sent before the other side says more
MOST = 2**31 - 1

DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x1, 0x4, 0x8, 0x20

MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME, MAX_HEADERS = 3, 4, 5, 6

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
FRAME_SIZE_ERROR, REFUSED_STREAM = 6, 7
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11

_HEAD = struct.Struct(">HBBBI")
_SETTING = struct.Struct(">HI")
_NUMBER = struct.Struct(">I")


class BrokenConnection(Exception):
    """The other side broke the protocol, or asks too much: the connection ends with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def head_of(data: bytes | bytearray, at: int) -> tuple[int, int, int, int]:
    """Length of the payload, kind, flags, stream."""
    high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
    return high << 8 | low, kind, flags, stream & MOST


def settings(values: dict[int, int]) -> bytes:
    payload = b"".join(_SETTING.pack(*each) for each in values.items())
    return frame(SETTINGS, 0, 0, payload)


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    if len(payload) % _SETTING.size:
        raise BrokenConnection(FRAME_SIZE_ERROR, "settings of a broken length")
    return list(_SETTING.iter_unpack(payload))


def window_update(stream: int, more: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(more))


def reset(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def go_away(last: int, code: int, reason: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, _NUMBER.pack(last) + _NUMBER.pack(code) + reason.encode())


def read_number(payload: bytes) -> int:
    if len(payload) != _NUMBER.size:
        raise BrokenConnection(FRAME_SIZE_ERROR, "a frame of a broken length")
    return int(_NUMBER.unpack(payload)[0])


def unpadded(flags: int, payload: bytes) -> bytes:
    """A DATA or HEADERS payload without its padding and priority."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise BrokenConnection(FRAME_SIZE_ERROR, "a padded frame without a length of it")
        start, end = 1, end - payload[0]
    if flags & PRIORITISED:
        start += 5
    if start > end:
        raise BrokenConnection(PROTOCOL_ERROR, "more padding than payload")
    return payload[start:end]
