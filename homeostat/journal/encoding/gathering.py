"""The messages of a spool file -> one table, put together without Arrow.

A server writes a few rows a message. For Arrow each is a record batch of a dozen arrays: to make
them and to join them takes longer than everything else that becomes of the rows. Here a head is
read once for all messages that have it, and the columns' bytes are laid one after the other.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from homeostat.journal.encoding.message import PREFIX, Layout, Numbers

PIECE = 1024  # messages looked at before others may have the interpreter


class Column(NamedTuple):
    """Where a column lies in a message's body: start and size of each buffer."""

    known: tuple[int, int]  # a bit for each value that is not null; nothing where all are there
    offsets: tuple[int, int] | None  # of texts and lists
    values: tuple[int, int]


class Head(NamedTuple):
    rows: int
    body: int  # bytes
    columns: tuple[Column, ...]


class Message(NamedTuple):
    at: int  # where its body begins
    head: Head


class Unusual(Exception):
    """It is for Arrow to read, or to refuse."""


def gathered(file: Any) -> Any | None:
    """The whole messages of a stream in a buffer, without a torn tail, as one table. None where
    Arrow has to look at them: columns of other types than we write, or a damaged file."""
    try:
        schema = pa.ipc.read_schema(pa.BufferReader(file))
        return _Gathering(memoryview(file), schema).table()
    except Exception:  # noqa: BLE001 - Arrow may read it still, and says what is wrong if not
        return None


class _Gathering:
    def __init__(self, file: memoryview, schema: Any) -> None:
        self._file = file
        self._schema = schema
        self._layout = Layout(schema)
        self._messages = self._found(PREFIX + int.from_bytes(file[4:PREFIX], "little"))
        self._rows = [message.head.rows for message in self._messages]

    def table(self) -> Any:
        arrays = [self._array(at, field.type) for at, field in enumerate(self._schema)]
        return pa.Table.from_arrays(arrays, schema=self._schema)

    def _found(self, at: int) -> list[Message]:
        file, size, end = self._file, self._layout.head_size, len(self._file)
        heads: dict[bytes, Head] = {}
        found: list[Message] = []
        while at + size <= end:
            raw = bytes(file[at : at + size])
            head = heads.get(raw)
            if head is None:
                head = heads[raw] = _read(self._layout, raw)
            message = Message(at + size, head)
            at += size + head.body
            if at > end:  # torn by a kill
                break
            found.append(message)
            if len(found) % PIECE == 0:
                time.sleep(0)
        return found

    def _array(self, column: int, type_: Any) -> Any:
        columns = [message.head.columns[column] for message in self._messages]
        values, known = self._joined([each.values for each in columns]), self._known(columns)
        rows = sum(self._rows)
        if pa.types.is_list(type_):
            inner = type_.value_type
            size = values.size // _width(inner)
            elements = pa.Array.from_buffers(inner, size, [None, values])
            buffers = [known, self._offsets(columns, _width(inner))]
            return pa.Array.from_buffers(type_, rows, buffers, children=[elements])
        if pa.types.is_string(type_):
            return pa.Array.from_buffers(type_, rows, [known, self._offsets(columns, 1), values])
        return pa.Array.from_buffers(type_, rows, [known, values])

    def _known(self, columns: Sequence[Column]) -> Any | None:
        if not any(each.known[1] for each in columns):
            return None
        bits = np.ones(sum(self._rows), np.uint8)
        at = 0
        for (body, _), (start, size), rows in zip(
            self._messages, [each.known for each in columns], self._rows, strict=True
        ):
            if size:
                place = body + start
                packed = np.frombuffer(self._file, np.uint8, size, place)
                bits[at : at + rows] = np.unpackbits(packed, count=rows, bitorder="little")
            at += rows
        return pa.py_buffer(np.packbits(bits, bitorder="little"))

    def _joined(self, places: Sequence[Any]) -> Any:
        """A buffer of each message, one after the other."""
        whole = pa.allocate_buffer(sum([size for _, size in places]))
        file, to, at = self._file, memoryview(whole), 0
        for (body, _), (start, size) in zip(self._messages, places, strict=True):
            to[at : at + size] = file[body + start : body + start + size]
            at += size
        time.sleep(0)
        return whole

    def _offsets(self, columns: Sequence[Column], width: int) -> Any:
        """Of all rows. Each message's begin at zero, and end where its values do."""
        each = np.frombuffer(self._joined([found.offsets for found in columns]), np.int32)
        sizes = np.array([found.values[1] for found in columns], np.int64)
        if sizes.sum() >= 2**31:  # more than an offset can say
            raise Unusual
        ends = np.cumsum(self._rows, dtype=np.int64) + np.arange(1, len(columns) + 1)
        starts = np.concatenate([ends[:0], [0], ends[:-1]])[: len(columns)]
        if each[starts].any() or (each[ends - 1] * np.int64(width) != sizes).any():
            raise Unusual
        whole = np.zeros(len(each) - len(columns) + 1, np.int32)
        np.cumsum(np.delete(np.diff(each), ends[:-1] - 1), out=whole[1:])
        return pa.py_buffer(whole)


def _read(layout: Layout, raw: bytes) -> Head:
    """Raises Unusual for a head that is not of this layout."""
    numbers = layout.numbers(raw)
    if numbers is None:
        raise Unusual
    reading = _Reading(numbers)
    columns = [reading.column(field.type) for field in layout.schema]
    return Head(numbers.rows, numbers.body, tuple(columns))


class _Reading:
    """Takes a head's numbers one after the other. Raises Unusual where they do not agree."""

    def __init__(self, numbers: Numbers) -> None:
        self._rows, self._body = numbers.rows, numbers.body
        self._counts, self._buffers = iter(numbers.counts), iter(numbers.buffers)

    def column(self, type_: Any) -> Column:
        rows, known = self._array()
        if rows != self._rows:
            raise Unusual
        if pa.types.is_string(type_):
            return Column(known, self._buffer(4 * (rows + 1)), self._buffer())
        if not pa.types.is_list(type_):
            return Column(known, None, self._buffer(rows * _width(type_)))
        offsets = self._buffer(4 * (rows + 1))
        count, nulls = self._array()
        if nulls[1]:
            raise Unusual
        return Column(known, offsets, self._buffer(count * _width(type_.value_type)))

    def _array(self) -> tuple[int, tuple[int, int]]:
        """Its length, and where it stands which of its values are null."""
        count, nulls, known = next(self._counts), next(self._counts), self._buffer()
        if nulls and 8 * known[1] < count:
            raise Unusual
        return count, known

    def _buffer(self, size: int | None = None) -> tuple[int, int]:
        place = next(self._buffers), next(self._buffers)
        if size not in (None, place[1]) or sum(place) > self._body:
            raise Unusual
        return place


def _width(type_: Any) -> int:
    """Bytes of an element. Raises Unusual where elements are not some bytes each."""
    whole = pa.types.is_primitive(type_) and type_.bit_width % 8 == 0
    if not whole:
        raise Unusual
    return int(type_.bit_width // 8)
