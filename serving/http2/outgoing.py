"""What goes out on one connection: never more than the client has made room for.

Frames of one turn of the event loop leave in one write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from serving.http2 import frames, headers, messages
from serving.http2.calls import Call
from serving.http2.frames import BrokenConnection, frame
from serving.http2.messages import Refused
from serving.http2.unsent import Unsent

# Bytes of answers that a client may leave with us for as long as it likes: four of the largest that
# gRPC's clients take unless told otherwise. Their bytes are bounded, and not how fast they have to
# go: at a rate that a slow line keeps up with, who means ill would hold all of them for hours. And
# only what has waited for a while is given up: the answers of many calls may be more for a moment.
MOST_UNSENT = 16 << 20
_LAST = frames.END_STREAM | frames.END_HEADERS


class Outgoing:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stream_window = frames.WINDOW  # of each new stream
        self.pauses = False  # the client does not read, and is not read
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._window = frames.WINDOW  # bytes we may still send
        self._largest = frames.LARGEST
        self._frames: list[bytes] = []
        self._unsent = Unsent()
        self._unsent_at = 0.0  # when something of it was last seen to wait for the client's network
        self._moved = 0.0  # when some of any answer was last sent
        self._most_out = MOST_UNSENT  # or one answer, where that is larger
        self._few_at = loop.time()  # when no more than that was last seen to be out

    def open(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def lost(self) -> None:
        self._transport = None

    def close(self) -> None:
        """Once what waits for this turn's end is out."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        """Without what its client would not take."""
        if self._transport is not None:
            self._transport.abort()

    def stands_for(self, now: float, calls: Iterable[Call]) -> float:
        """For how many seconds the client has taken nothing: of what is out, or, where all of that
        has left, of the answers that wait for the window that all share; or too little, of what it
        said it had room for. Asked now and then."""
        size = 0 if self._transport is None else self._transport.get_write_buffer_size()
        stood = self._unsent.stands_for(size, now)
        if size <= self._most_out:
            self._few_at = now
        if size:
            self._unsent_at = now
            return max(stood, now - self._few_at)
        held = [call.moved for call in calls if call.out is not None and call.window > 0]
        return now - max(self._moved, self._unsent_at, min(held)) if held else 0.0

    def waits_for(self, call: Call, now: float) -> float:
        """For how many seconds the client has made no room for this answer by itself, since all
        that it was sent of it, or of others, had left."""
        if call.out is None or call.window > 0:
            return 0.0
        return now - max(call.moved, self._unsent_at)

    def behind(self, calls: Mapping[int, Call], now: float, within: float) -> list[int]:
        """Streams whose answer has waited for longer than `within` with too much before it. The
        first of all never has: an answer of any size may go out as slowly as it will."""
        before, found = 0, []
        for stream, call in calls.items():
            if call.out is None:
                continue
            if before > MOST_UNSENT and now - call.ready > within:
                found.append(stream)
            before += call.kept
        return found

    def pause_reading(self) -> None:
        self.pauses = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        self.pauses = False
        self._most_out, self._few_at = MOST_UNSENT, self._loop.time()  # what was out has left
        if self._transport is not None:
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        if not self._frames:
            self._loop.call_soon(self._flush)
        self._frames.append(data)

    def answer(self, stream: int, call: Call, message: bytes) -> bool:
        """See `send`."""
        self.write(frame(frames.HEADERS, frames.END_HEADERS, stream, headers.BEGIN))
        call.out, call.moved = memoryview(messages.wrapped(message)), self._loop.time()
        if len(message) > self._most_out:
            self._most_out = len(message)
        if self.send(stream, call):
            return True
        call.ready, call.kept = call.moved, len(message)
        return False

    def send(self, stream: int, call: Call) -> bool:
        """As much of the answer as the windows allow; whether that was the end of it."""
        out = call.out
        while out:
            size = min(len(out), call.window, self._window, self._largest)
            if size <= 0:
                call.out = out
                return False
            self.write(frame(frames.DATA, 0, stream, bytes(out[:size])))
            call.window -= size
            self._window -= size
            out = out[size:]
            call.moved = self._moved = self._loop.time()
        self.write(frame(frames.HEADERS, _LAST, stream, headers.DONE))
        return True

    def refuse(self, stream: int, call: Call, refused: Refused) -> None:
        self.write(frame(frames.HEADERS, _LAST, stream, headers.failure(refused)))
        if not call.ended:  # the rest of its message is not read
            self.write(frames.reset(stream, frames.NO_ERROR))

    def take_settings(self, payload: bytes, calls: Mapping[int, Call]) -> None:
        """The client's; raises BrokenConnection."""
        for name, value in frames.read_settings(payload):
            if name == frames.INITIAL_WINDOW:
                if value > frames.MOST:
                    raise BrokenConnection(frames.FLOW_CONTROL_ERROR, "a window too large")
                more, self.stream_window = value - self.stream_window, value
                for call in calls.values():
                    call.window += more
            elif name == frames.MAX_FRAME:
                self._largest = max(frames.LARGEST, min(value, 1 << 20))
        self.write(frame(frames.SETTINGS, frames.ACK, 0))

    def take_room(self, stream: int, more: int, calls: Mapping[int, Call]) -> None:
        """The client has read so much; raises BrokenConnection."""
        if stream == 0:
            self._window += more
        elif (call := calls.get(stream)) is not None:
            call.window += more
        if max(self._window, more) > frames.MOST:
            raise BrokenConnection(frames.FLOW_CONTROL_ERROR, "a window too large")

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._frames))
        self._frames.clear()
