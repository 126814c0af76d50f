"""Header blocks (HPACK, RFC 7541): those that come, and the few that go out."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from hpack import Decoder, HPACKError, OversizedHeaderListError

from serving.http2.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, BrokenConnection
from serving.http2.messages import Refused

MOST_BYTES = 16_384  # of a block, and of the headers it stands for
MOST_KEPT = 64
LONGEST_MESSAGE = 1000

Headers = Mapping[bytes, bytes]


class BlockReader:
    """The blocks of one connection, in the order they come.

    A client says the same headers again and again, in the same few bytes: as long as a block
    changes nothing in the table that both sides keep, it means the same the next time.
    """

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=MOST_BYTES)
        self._kept: dict[bytes, Headers] = {}

    def read(self, block: bytes) -> Headers:
        """By name; of several with one name, the last."""
        found = self._kept.get(block)
        if found is not None:
            return found
        before, newest = self._state()
        try:
            pairs = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError as error:
            raise BrokenConnection(ENHANCE_YOUR_CALM, str(error)) from None
        except HPACKError as error:
            raise BrokenConnection(COMPRESSION_ERROR, f"broken headers: {error}") from None
        found = {bytes(name): bytes(value) for name, value in pairs}
        now, newest_now = self._state()
        if now != before or newest_now is not newest:
            self._kept.clear()
        elif len(self._kept) < MOST_KEPT:
            self._kept[block] = found
        return found

    def _state(self) -> tuple[tuple[int, int], object]:
        """Changes whenever the table does: what is added to it is a new object at its front."""
        table = self._decoder.header_table
        entries = table.dynamic_entries
        return (len(entries), table.maxsize), entries[0] if entries else None


def _literal(name: bytes, value: bytes) -> bytes:
    """Never put into the table, so that the same bytes always mean the same."""
    return b"\x00" + _text(name) + _text(value)


def _text(value: bytes) -> bytes:
    size = len(value)
    if size < 127:
        return bytes([size]) + value
    size -= 127
    head = bytearray([127])
    while size >= 128:
        head.append(size % 128 + 128)
        size //= 128
    head.append(size)
    return bytes(head) + value


_STATUS_200 = b"\x88"
BEGIN = _STATUS_200 + _literal(b"content-type", b"application/grpc")
DONE = _literal(b"grpc-status", b"0")


def failure(refused: Refused) -> bytes:
    """All there is of an answer that is none."""
    text = quote(refused.message[:LONGEST_MESSAGE], safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
    status = _literal(b"grpc-status", str(refused.code).encode())
    return BEGIN + status + _literal(b"grpc-message", text.encode())
