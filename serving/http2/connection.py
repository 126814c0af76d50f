"""One client's HTTP/2 connection, for gRPC's calls of one message each way.

The usual gRPC server for asyncio takes some 300 µs of CPU a call. What a unary call needs of HTTP/2
is little: a block of headers and a message come, a message and a status go. Answers of one turn of
the event loop leave in one write. Everything a client may make us keep is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from serving.http2 import frames, headers, messages
from serving.http2.frames import BrokenConnection, frame
from serving.http2.messages import Refused

MOST_HELD = 4  # messages of the largest size, of those that are not whole yet
MOST_CALLS = 1000  # open at once, of one connection
MOST_IDLE_FRAMES = 10_000  # settings, pings, resets, in a second and without a call that is whole
CREDIT = 1 << 20  # bytes received, after which the client may send as many more


class Calls(Protocol):
    """What the calls mean."""

    limit: int  # bytes of a message

    def begin(
        self, path: bytes, authorization: str | None, message: bytes
    ) -> asyncio.Future[bytes]:
        """The answer's message, or an error, later; raises none itself."""
        ...

    def refusal(self, error: BaseException) -> Refused:
        """What the caller is told of any error."""
        ...


class Call:
    """One stream, from its headers to the last byte of its answer."""

    __slots__ = ("began", "data", "ended", "headers", "out", "size", "window")

    def __init__(self, given: headers.Headers, window: int, began: float) -> None:
        self.headers = given
        self.began = began
        self.data: list[bytes] = []
        self.size = 0
        self.ended = False  # nothing more comes from the client
        self.window = window  # bytes we may still send
        self.out: memoryview | None = None  # of the answer, what waits for the window


class Connection(asyncio.Protocol):
    def __init__(
        self, calls: Calls, everyone: set[Connection], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._calls = calls
        self._everyone = everyone
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._in = bytearray()
        self._begun = False  # the client's preface is there
        self._blocks = headers.BlockReader()
        self._block: tuple[int, int, list[bytes]] | None = None  # stream, flags, parts so far
        self._open: dict[int, Call] = {}
        self._busy = 0  # calls whose answer is on its way, also of streams that were reset
        self._last = 0  # the newest stream
        self._received = 0  # bytes since the client was last given credit
        self._window = frames.WINDOW  # bytes we may still send
        self._stream_window = frames.WINDOW  # of each new stream
        self._largest = frames.LARGEST
        self._idle_frames = 0
        self._leaving = False
        self._out: list[bytes] = []
        self._idle_since = 0.0
        self._held = 0  # bytes of messages that are not whole yet
        self.heard = loop.time()

    # The transport's side
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's are of no common class
        self._everyone.add(self)
        window = min(frames.MOST, self._calls.limit + frames.WINDOW)
        values = {frames.MAX_STREAMS: MOST_CALLS, frames.INITIAL_WINDOW: window}
        self._write(frames.settings(values | {frames.MAX_HEADERS: headers.MOST_BYTES}))
        self._write(frames.window_update(0, max(window, 4 * CREDIT) - frames.WINDOW))

    def connection_lost(self, _error: Exception | None) -> None:
        self._everyone.discard(self)
        self._open.clear()
        self._transport = None

    def pause_writing(self) -> None:
        """A client that does not read its answers is not listened to."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        if self.heard - self._idle_since > 1.0:
            self._idle_frames, self._idle_since = 0, self.heard
        self._in += data
        try:
            self._read_frames()
        except BrokenConnection as error:
            self._write(frames.go_away(self._last, error.code, str(error)))
            self._close()

    def leave(self) -> None:
        """Begin no more calls; close once the open ones are answered."""
        if not self._leaving:
            self._leaving = True
            self._write(frames.go_away(self._last, frames.NO_ERROR))
            self._close_if_done()

    def sweep(self, now: float, *, call: float, idle: float) -> None:
        """End what has been coming in for longer than `call` seconds, and a connection that was
        not used for longer than `idle`."""
        for stream, each in list(self._open.items()):
            if not each.ended and now - each.began > call:
                self._refuse(stream, each, messages.too_slow(call))
        if not self._open and now - self.heard > idle:
            self.leave()

    def end(self) -> None:
        self._close()

    # What comes
    def _read_frames(self) -> None:
        buffer, at = self._in, 0
        if not self._begun:
            if not frames.PREFACE.startswith(buffer[: len(frames.PREFACE)]):
                raise BrokenConnection(frames.PROTOCOL_ERROR, "this port speaks gRPC")
            if len(buffer) < len(frames.PREFACE):
                return
            self._begun, at = True, len(frames.PREFACE)
        while len(buffer) - at >= frames.HEAD:
            size, kind, flags, stream = frames.head_of(buffer, at)
            if size > frames.LARGEST:
                raise BrokenConnection(frames.FRAME_SIZE_ERROR, "a frame too large")
            end = at + frames.HEAD + size
            if len(buffer) < end:
                break
            payload = bytes(buffer[at + frames.HEAD : end])
            at = end
            self._take(kind, flags, stream, payload)
        del buffer[:at]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is not None and kind != frames.CONTINUATION:
            raise BrokenConnection(frames.PROTOCOL_ERROR, "headers were not finished")
        if kind == frames.DATA:
            self._take_data(stream, flags, payload)
        elif kind == frames.HEADERS:
            self._take_headers(stream, flags, payload)
        else:
            self._take_rest(kind, flags, stream, payload)

    def _take_rest(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == frames.CONTINUATION:
            self._take_continuation(stream, flags, payload)
            return
        self._idle_frames += 1
        if self._idle_frames > MOST_IDLE_FRAMES:
            raise BrokenConnection(frames.ENHANCE_YOUR_CALM, "too many frames between calls")
        if kind == frames.WINDOW_UPDATE:
            self._take_window(stream, frames.read_number(payload))
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            self._take_settings(payload)
            self._write(frame(frames.SETTINGS, frames.ACK, 0))
        elif kind == frames.PING and not flags & frames.ACK:
            self._write(frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.RST_STREAM:
            self._forget(stream)
        elif kind == frames.GOAWAY:
            self._leaving = True
            self._close_if_done()
        elif kind == frames.PUSH_PROMISE:
            raise BrokenConnection(frames.PROTOCOL_ERROR, "clients push nothing")

    def _take_settings(self, payload: bytes) -> None:
        for name, value in frames.read_settings(payload):
            if name == frames.INITIAL_WINDOW:
                if value > frames.MOST:
                    raise BrokenConnection(frames.FLOW_CONTROL_ERROR, "a window too large")
                more, self._stream_window = value - self._stream_window, value
                for call in self._open.values():
                    call.window += more
            elif name == frames.MAX_FRAME:
                self._largest = max(frames.LARGEST, min(value, 1 << 20))
        self._send_waiting()

    def _take_window(self, stream: int, more: int) -> None:
        if stream == 0:
            self._window += more
        elif (call := self._open.get(stream)) is not None:
            call.window += more
        if max(self._window, more) > frames.MOST:
            raise BrokenConnection(frames.FLOW_CONTROL_ERROR, "a window too large")
        self._send_waiting()

    def _take_headers(self, stream: int, flags: int, payload: bytes) -> None:
        block = frames.unpadded(flags, payload)
        if not flags & frames.END_HEADERS:
            self._block = (stream, flags, [block])
            return
        self._take_block(stream, flags, block)

    def _take_continuation(self, stream: int, flags: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream:
            raise BrokenConnection(frames.PROTOCOL_ERROR, "a continuation of nothing")
        _, first_flags, parts = self._block
        parts.append(payload)
        if len(parts) > 64 or sum(map(len, parts)) > headers.MOST_BYTES:
            raise BrokenConnection(frames.ENHANCE_YOUR_CALM, "headers without end")
        if flags & frames.END_HEADERS:
            self._block = None
            self._take_block(stream, first_flags, b"".join(parts))

    def _take_block(self, stream: int, flags: int, block: bytes) -> None:
        given = self._blocks.read(block)
        call = self._open.get(stream)
        if call is None:
            if stream <= self._last or not stream % 2:
                if stream % 2 and stream:
                    return  # trailers of a stream that was answered already
                raise BrokenConnection(frames.PROTOCOL_ERROR, "a stream of no client")
            self._last = stream
            if self._leaving or max(len(self._open), self._busy) >= MOST_CALLS:
                self._write(frames.reset(stream, frames.REFUSED_STREAM))
                return
            call = self._open[stream] = Call(given, self._stream_window, self.heard)
        if flags & frames.END_STREAM:
            self._end_of(stream, call)

    def _take_data(self, stream: int, flags: int, payload: bytes) -> None:
        self._received += len(payload)
        if self._received >= CREDIT:
            self._write(frames.window_update(0, self._received))
            self._received = 0
        call = self._open.get(stream)
        if call is None or call.ended:
            if stream > self._last:
                raise BrokenConnection(frames.PROTOCOL_ERROR, "data of no stream")
            return
        data = frames.unpadded(flags & ~frames.PRIORITISED, payload)
        call.size += len(data)
        self._held += len(data)
        if call.size > self._calls.limit + messages.PREFIX:
            self._refuse(stream, call, messages.too_large(self._calls.limit))
            return
        if self._held > MOST_HELD * self._calls.limit:
            self._refuse(stream, call, messages.too_much())
            return
        call.data.append(data)
        if flags & frames.END_STREAM:
            self._end_of(stream, call)

    def _end_of(self, stream: int, call: Call) -> None:
        if call.ended:
            return
        call.ended = True
        self._idle_frames = 0
        self._held -= call.size
        given = call.headers
        try:
            message = messages.unwrapped(b"".join(call.data), given, self._calls.limit)
        except Refused as error:
            self._refuse(stream, call, error)
            return
        call.data.clear()
        authorization = given.get(b"authorization")
        answer = self._calls.begin(
            given.get(b":path", b""),
            None if authorization is None else authorization.decode("latin-1"),
            message,
        )
        self._busy += 1
        answer.add_done_callback(self._answerer(stream, call))

    # What goes
    def _answerer(self, stream: int, call: Call) -> Callable[[asyncio.Future[bytes]], None]:
        def answer(done: asyncio.Future[bytes]) -> None:
            self._busy -= 1
            if done.cancelled():
                return
            error = done.exception()
            refused = None if error is None else self._calls.refusal(error)
            if self._open.get(stream) is not call:  # the caller is gone
                return
            if refused is not None:
                self._refuse(stream, call, refused)
                return
            self._write(frame(frames.HEADERS, frames.END_HEADERS, stream, headers.BEGIN))
            call.out = memoryview(messages.wrapped(done.result()))
            self._send(stream, call)

        return answer

    def _send(self, stream: int, call: Call) -> None:
        """As much of the answer as the windows allow, then its end."""
        out = call.out
        while out:
            size = min(len(out), call.window, self._window, self._largest)
            if size <= 0:
                call.out = out
                return
            self._write(frame(frames.DATA, 0, stream, bytes(out[:size])))
            call.window -= size
            self._window -= size
            out = out[size:]
        end = frames.END_STREAM | frames.END_HEADERS
        self._write(frame(frames.HEADERS, end, stream, headers.DONE))
        self._forget(stream)

    def _send_waiting(self) -> None:
        for stream, call in list(self._open.items()):
            if call.out is not None:
                self._send(stream, call)

    def _refuse(self, stream: int, call: Call, refused: Refused) -> None:
        block = headers.failure(refused.code, refused.message)
        end = frames.END_STREAM | frames.END_HEADERS
        self._write(frame(frames.HEADERS, end, stream, block))
        if not call.ended:  # the rest of its message is not read
            self._write(frames.reset(stream, frames.NO_ERROR))
        self._forget(stream)

    def _forget(self, stream: int) -> None:
        call = self._open.pop(stream, None)
        if call is not None and not call.ended:
            self._held -= call.size
        self._close_if_done()

    def _write(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _close_if_done(self) -> None:
        if self._leaving and not self._open:
            self._close()

    def _close(self) -> None:
        if self._transport is not None:
            self._flush()
            self._transport.close()
