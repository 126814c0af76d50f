"""A client of gRPC that sends its frames by hand."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

import hpack

from serving.http2 import frames
from serving.http2.frames import frame

PATIENCE = 20.0
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", ""),
    ("content-type", "application/grpc"),
]


def text_of(pairs: Iterable[tuple[object, object]]) -> dict[str, str]:
    """hpack's types say bytes; it gives text where `raw` is not asked for."""
    return {str(name): str(value) for name, value in pairs}


class Raw(socket.socket):
    """A client that sends frames by hand."""

    def __init__(self, port: int, room: int | None = None) -> None:
        """`room`: for so many bytes of answers that it has not read."""
        super().__init__()
        if room is not None:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        self.settimeout(PATIENCE)
        self.connect(("127.0.0.1", port))
        self._file = self.makefile("rb")
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()

    def close(self) -> None:
        self._file.close()
        super().close()

    def begin(self, more: dict[int, int] | None = None) -> None:
        self.sendall(frames.PREFACE + frames.settings(more or {}))

    def headers(self, path: str = "/x.Y/Echo", **more: str) -> bytes:
        pairs = [(name, path if name == ":path" else value) for name, value in HEADERS]
        return self.encoder.encode(pairs + [(k.replace("_", "-"), v) for k, v in more.items()])

    def head(self, stream: int, path: str = "/x.Y/Echo", **more: str) -> None:
        block = self.headers(path, **more)
        self.sendall(frame(frames.HEADERS, frames.END_HEADERS, stream, block))

    def message(self, stream: int, message: bytes, *, end: int = frames.END_STREAM) -> None:
        data = struct.pack(">BI", 0, len(message)) + message
        self.sendall(frame(frames.DATA, end, stream, data))

    def call(self, stream: int, message: bytes, *, end: int = frames.END_STREAM) -> None:
        self.head(stream)
        self.message(stream, message, end=end)

    def next(self, *kinds: int) -> tuple[int, int, int, bytes]:
        """The next frame of these kinds: kind, flags, stream, payload."""
        while True:
            head = self._file.read(frames.HEAD)
            if not head:
                raise EOFError
            size, kind, flags, stream = frames.head_of(head, 0)
            payload = self._file.read(size)
            if kind in kinds:
                return kind, flags, stream, payload

    def ends_with(self) -> int:
        """The code of the GOAWAY with which the server ends the connection."""
        *_, payload = self.next(frames.GOAWAY)
        return int(struct.unpack_from(">I", payload, 4)[0])

    def status(self) -> str:
        """gRPC's, of the next call that ends."""
        while True:
            _, flags, _, block = self.next(frames.HEADERS)
            pairs = self.decoder.decode(block)
            if flags & frames.END_STREAM:
                return text_of(pairs)["grpc-status"]
