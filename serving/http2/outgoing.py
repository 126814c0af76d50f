"""What goes out on one connection: never more than the client has made room for.

Frames of one turn of the event loop leave in one write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from serving.http2 import frames, headers, messages
from serving.http2.calls import Call
from serving.http2.frames import BrokenConnection, frame
from serving.http2.messages import Refused
from serving.http2.unsent import Unsent

_LAST = frames.END_STREAM | frames.END_HEADERS


class Outgoing:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stream_window = frames.WINDOW  # of each new stream
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._window = frames.WINDOW  # bytes we may still send
        self._largest = frames.LARGEST
        self._frames: list[bytes] = []
        self._unsent = Unsent()

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

    def unsent_for(self, now: float) -> float:
        """For how many seconds the client has taken nothing of what is out; asked now and then."""
        if self._transport is None:
            return 0.0
        return self._unsent.stands_for(self._transport.get_write_buffer_size(), now)

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
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
        return self.send(stream, call)

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
            call.moved = self._loop.time()
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
