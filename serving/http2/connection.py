"""One client's HTTP/2 connection, for gRPC's calls of one message each way: what comes.

The usual gRPC server for asyncio takes some 300 µs of CPU a call. What a unary call needs of HTTP/2
is little: a block of headers and a message come, a message and a status go (see outgoing).
Everything a client may make us keep is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from homeostat.errors import HomeostatError
from serving.http2 import frames, headers, messages
from serving.http2.calls import Answer, Call, Calls
from serving.http2.frames import BrokenConnection, frame
from serving.http2.messages import Refused
from serving.http2.outgoing import Outgoing

MOST_HELD = 4  # messages of the largest size, of those that are not whole yet
MOST_CALLS = 1000  # open at once, of one connection
MOST_IDLE_FRAMES = 10_000  # settings, pings, resets, in a second and without a call that is whole
CREDIT = 1 << 20  # bytes received, after which the client may send as many more


class Connection(asyncio.Protocol):
    """`name`: what others may know it by, while it lasts."""

    def __init__(
        self, calls: Calls, everyone: set[Connection], name: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._calls = calls
        self._everyone = everyone
        self._name = name
        self._loop = loop
        self._out = Outgoing(loop)
        self._in = bytearray()
        self._begun = False  # the client's preface is there
        self._blocks = headers.BlockReader()
        self._block: tuple[int, int, list[bytes]] | None = None  # stream, flags, parts so far
        self._open: dict[int, Call] = {}
        self._busy = 0  # calls whose answer is on its way, also of streams that were reset
        self._last = 0  # the newest stream
        self._received = 0  # bytes since the client was last given credit
        self._idle_frames = 0
        self._leaving = False
        self._idle_since = 0.0
        self._paused = 0.0  # when it last began not to read
        self._held = 0  # bytes of messages that are not whole yet
        self.heard = loop.time()

    # The transport's side
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._out.open(transport)  # type: ignore[arg-type]  # uvloop's are of no common class
        self._everyone.add(self)
        window = min(frames.MOST, self._calls.limit + frames.WINDOW)
        values = {frames.MAX_STREAMS: MOST_CALLS, frames.INITIAL_WINDOW: window}
        self._out.write(frames.settings(values | {frames.MAX_HEADERS: headers.MOST_BYTES}))
        self._out.write(frames.window_update(0, max(window, 4 * CREDIT) - frames.WINDOW))

    def connection_lost(self, _error: Exception | None) -> None:
        self._everyone.discard(self)
        self._open.clear()
        self._out.lost()

    def pause_writing(self) -> None:
        """A client that does not read its answers is not listened to."""
        self._paused = self._loop.time()
        self._out.pause_reading()

    def resume_writing(self) -> None:
        for each in self._open.values():
            if not each.size:
                each.began += self._loop.time() - self._paused  # nothing was read meanwhile
        self._out.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        if self.heard - self._idle_since > 1.0:
            self._idle_frames, self._idle_since = 0, self.heard
        self._in += data
        try:
            self._read_frames()
        except BrokenConnection as error:
            self._out.write(frames.go_away(self._last, error.code, str(error)))
            self._out.close()

    def leave(self) -> None:
        """Begin no more calls; close once the open ones are answered."""
        if not self._leaving:
            self._leaving = True
            self._out.write(frames.go_away(self._last, frames.NO_ERROR))
            self._close_if_done()

    def sweep(self, now: float, *, call: float, idle: float) -> None:
        """End what has been coming in for longer than `call` seconds, a call for whose answer alone
        its client has made no room for as long, or that has waited so long behind too many others,
        a connection whose client takes nothing at all, and one not used for longer than `idle`."""
        stands = self._out.stands_for(now, self._open.values())
        stuck = [key for key, each in self._open.items() if self._out.waits_for(each, now) > call]
        if stands > call or (stuck and len(stuck) == len(self._open)):
            self._out.abort()  # to close would wait for the client
            return
        for stream in {*stuck, *self._out.behind(self._open, now, call)}:
            self._out.write(frames.reset(stream, frames.ENHANCE_YOUR_CALM))
            self._forget(stream)
        for stream, each in list(self._open.items()):
            unread = self._out.pauses and not each.size  # where there is some of it, it is held
            if not each.ended and now - each.began > call and not unread:
                self._turn_away(stream, each, messages.too_slow(call))
        if not self._open and now - self.heard > idle:
            self.leave()

    def end(self) -> None:
        self._out.close()

    @property
    def in_flight(self) -> int:
        return len(self._open)

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
        self._count_idle()
        if kind == frames.WINDOW_UPDATE:
            self._out.take_room(stream, frames.read_number(payload), self._open)
            self._send_waiting()
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            self._out.take_settings(payload, self._open)
            self._send_waiting()
        elif kind == frames.PING and not flags & frames.ACK:
            self._out.write(frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.RST_STREAM:
            self._forget(stream)
        elif kind == frames.GOAWAY:
            self._leaving = True
            self._close_if_done()
        elif kind == frames.PUSH_PROMISE:
            raise BrokenConnection(frames.PROTOCOL_ERROR, "clients push nothing")

    def _count_idle(self) -> None:
        self._idle_frames += 1
        if self._idle_frames > MOST_IDLE_FRAMES:
            raise BrokenConnection(frames.ENHANCE_YOUR_CALM, "too many frames between calls")

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
            call = Call(given, self._name, self._out.stream_window, self.heard)
            if not self._is_admitted(stream, call, ended=bool(flags & frames.END_STREAM)):
                return
        if flags & frames.END_STREAM:
            self._end_of(stream, call)

    def _is_admitted(self, stream: int, call: Call, *, ended: bool) -> bool:
        """Or refused, before anything of its message is kept."""
        crowded = max(len(self._open), self._busy) >= MOST_CALLS
        if self._leaving or crowded:
            if crowded:
                self._calls.turned_away(call, messages.too_many())
            self._out.write(frames.reset(stream, frames.REFUSED_STREAM))
            return False
        try:
            call.limit = self._calls.admit(call)
        except HomeostatError as error:
            call.ended = ended
            self._out.refuse(stream, call, self._calls.refusal(error))
            return False
        self._open[stream] = call
        return True

    def _take_data(self, stream: int, flags: int, payload: bytes) -> None:
        self._received += len(payload)
        if self._received >= CREDIT:
            self._out.write(frames.window_update(0, self._received))
            self._received = 0
        call = self._open.get(stream)
        if call is None or call.ended:
            if stream > self._last:
                raise BrokenConnection(frames.PROTOCOL_ERROR, "data of no stream")
            return
        data = frames.unpadded(flags & ~frames.PRIORITISED, payload)
        if not data and not flags & frames.END_STREAM:
            self._count_idle()
            return
        call.size += len(data)
        self._held += len(data)
        if call.size > call.limit + messages.PREFIX:
            self._turn_away(stream, call, messages.too_large(call.limit))
            return
        if self._held > MOST_HELD * self._calls.limit:
            self._turn_away(stream, call, messages.too_much())
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
        try:
            message = messages.unwrapped(b"".join(call.data), call.headers, call.limit)
        except Refused as error:
            self._turn_away(stream, call, error)
            return
        call.data.clear()
        self._busy += 1
        answer = self._calls.begin(call, message)
        answer.add_done_callback(self._answerer(stream, call))

    # Answers
    def _answerer(self, stream: int, call: Call) -> Callable[[Answer], None]:
        def answer(done: Answer) -> None:
            self._busy -= 1
            try:
                error = done.exception()
            except asyncio.CancelledError:
                return
            refused = None if error is None else self._calls.refusal(error)
            if self._open.get(stream) is not call:  # the caller is gone
                return
            if refused is not None:
                self._refuse(stream, call, refused)
            elif self._out.answer(stream, call, done.result()):
                self._forget(stream)

        return answer

    def _send_waiting(self) -> None:
        for stream, call in list(self._open.items()):
            if call.out is not None and self._out.send(stream, call):
                self._forget(stream)

    def _turn_away(self, stream: int, call: Call, refused: Refused) -> None:
        self._calls.turned_away(call, refused)
        self._refuse(stream, call, refused)

    def _refuse(self, stream: int, call: Call, refused: Refused) -> None:
        self._out.refuse(stream, call, refused)
        self._forget(stream)

    def _forget(self, stream: int) -> None:
        call = self._open.pop(stream, None)
        if call is not None and not call.ended:
            self._held -= call.size
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._leaving and not self._open:
            self._out.close()
