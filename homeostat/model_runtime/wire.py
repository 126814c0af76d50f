"""What a server and its worker process say to each other: MessagePack, no pickle."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Array:
    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: NDArray[Any]) -> Array:
        return cls(array.dtype.str, array.shape, array.tobytes())

    def read(self) -> NDArray[Any]:
        """A read-only view of the bytes that came."""
        return np.frombuffer(self.data, np.dtype(self.dtype)).reshape(self.shape)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Parent to worker, first."""

    folder: str
    task: str
    tensor_shape: tuple[int, ...] | None
    tensor_dtype: str
    classes: tuple[str, ...]
    embedding: str | None
    threads: int
    warm_up_rows: int


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Parent to worker: one batch."""

    rows: int
    matrix: Array | None = None
    columns: Mapping[str, list[Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """Worker to parent: to the set-up (with classes), and to each batch."""

    error: str | None = None
    cold: str | None = None  # to the set-up: what the model raised on rows made up to warm it
    classes: tuple[str, ...] = ()
    labels: list[str] | None = None
    values: Array | None = None
    probabilities: Array | None = None
    embedding: Array | None = None


def send(connection: socket.socket, message: object) -> None:
    data = msgspec.msgpack.encode(message)
    connection.sendall(_LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket, type_: type[T]) -> T:
    """Raises EOFError when the other side is gone, TimeoutError past the socket's timeout."""
    (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size))
    return msgspec.msgpack.decode(_read(connection, length), type=type_)


def _read(connection: socket.socket, count: int) -> bytearray:
    buffer = bytearray(count)
    view = memoryview(buffer)
    while view:
        read = connection.recv_into(view)
        if not read:
            raise EOFError("the other side is gone")
        view = view[read:]
    return buffer
