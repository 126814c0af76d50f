"""A record batch as the bytes of one Arrow IPC message, put together without Arrow.

A server logs a batch of a few rows thousands of times a second. To build a dozen Arrow arrays and
have Arrow serialize them costs more than the prediction. All that changes in the head of such a
message are a few numbers at known places, so Arrow makes it once for each schema; the body is
the columns' buffers, one after the other.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, NamedTuple

import pyarrow as pa

MOST_HEADS = 128  # kept of a schema: batches of few rows and texts of one length share theirs
PREFIX = 8  # bytes before the head: a marker and the head's length
_PADS = tuple(bytes(-size % 8) for size in range(8))


class Part(NamedTuple):
    """One column, or some that lie side by side, as they stand in a message.

    `counts` are length and nulls of each array, a list before its elements; `sizes` are those of
    its buffers, with 0 for a validity bitmap that is not there; each buffer in `body` is padded to
    a multiple of eight.
    """

    counts: tuple[int, ...]
    sizes: tuple[int, ...]
    body: tuple[bytes | memoryview, ...]


class Layout:
    """The messages of one schema."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.start: bytes = schema.serialize().to_pybytes()
        # one row of nulls, since a number that is zero may be left out of a head
        row = [pa.nulls(1, field.type) for field in schema]
        message = pa.RecordBatch.from_arrays(row, schema=schema).serialize().to_pybytes()
        head = PREFIX + _u32(message, 4)
        self._head = message[:head]
        places = _places(message)
        self._body_at, self._rows_at = places.body, places.rows
        self._counts_at, self._buffers_at = places.counts + 4, places.buffers + 4
        self._counts = struct.Struct(f"<{2 * _u32(message, places.counts)}q")
        self._buffers = struct.Struct(f"<{2 * _u32(message, places.buffers)}q")
        self._heads: dict[tuple[Any, ...], bytes] = {}

    def message(self, rows: int, parts: Sequence[Part]) -> bytes:
        """The parts stand in the schema's order, as many as its columns take."""
        key = (rows, *[part[:2] for part in parts])
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= MOST_HEADS:
                self._heads.clear()
            head = self._heads[key] = self._made(rows, parts)
        return b"".join([head, *chain.from_iterable([part.body for part in parts])])

    def head_of(self, message: bytes) -> bytes:
        return message[: len(self._head)]

    def _made(self, rows: int, parts: Sequence[Part]) -> bytes:
        sizes = [size for part in parts for size in part.sizes]
        starts = list(accumulate([size + 7 & -8 for size in sizes], initial=0))
        head = bytearray(self._head)
        self._counts.pack_into(
            head, self._counts_at, *chain.from_iterable([p.counts for p in parts])
        )
        self._buffers.pack_into(
            head, self._buffers_at, *chain.from_iterable(zip(starts, sizes, strict=False))
        )
        _INT64.pack_into(head, self._rows_at, rows)
        _INT64.pack_into(head, self._body_at, starts[-1])
        return bytes(head)


class Encoded(NamedTuple):
    """Rows as they are written to the spool."""

    layout: Layout
    data: bytes
    rows: int


def from_batch(layout: Layout, batch: Any) -> Encoded:
    """Of a record batch that Arrow made."""
    return Encoded(layout, batch.serialize().to_pybytes(), batch.num_rows)


def body_bytes(head: bytes) -> int:
    """How long a message's body is, by its prefix and head; 0 where they do not say. Raises
    struct.error for a head that is none."""
    root = PREFIX + _u32(head, PREFIX)
    vtable = root - struct.unpack_from("<i", head, root)[0]
    if struct.unpack_from("<H", head, vtable)[0] <= 4 + 2 * 3:
        return 0
    place = _field(head, root, 3)
    return 0 if place == root else int(_INT64.unpack_from(head, place)[0])


def padded(data: bytes) -> bytes:
    return data + _PADS[len(data) % 8] if len(data) % 8 else data


def padding(size: int) -> bytes:
    """What follows a buffer of this size."""
    return _PADS[size % 8]


@dataclass(frozen=True)
class _Places:
    body: int  # of the body's length
    rows: int
    counts: int  # of a vector: its length, then its numbers
    buffers: int


def _places(message: bytes) -> _Places:
    """Message.fbs: a Message's third field is its RecordBatch, the fourth the body's length; a
    RecordBatch begins with its length, the nodes and the buffers."""
    root = PREFIX + _u32(message, PREFIX)
    batch = _follow(message, _field(message, root, 2))
    return _Places(
        body=_field(message, root, 3),
        rows=_field(message, batch, 0),
        counts=_follow(message, _field(message, batch, 1)),
        buffers=_follow(message, _field(message, batch, 2)),
    )


def _field(message: bytes, table: int, number: int) -> int:
    """Where a table's field lies, in the encoding of flatbuffers."""
    vtable = table - struct.unpack_from("<i", message, table)[0]
    offset: int = struct.unpack_from("<H", message, vtable + 4 + 2 * number)[0]
    return table + offset


def _follow(message: bytes, at: int) -> int:
    return at + _u32(message, at)


def _u32(message: bytes, at: int) -> int:
    number: int = struct.unpack_from("<I", message, at)[0]
    return number


_INT64 = struct.Struct("<q")
