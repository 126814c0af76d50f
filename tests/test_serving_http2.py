"""HTTP/2 as gRPC's clients speak it, and as nobody should."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

import grpc
import hpack
import pytest
import uvloop
from http2_kit import HEADERS, PATIENCE, Raw, text_of
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.http2 import frames
from serving.http2.calls import Call
from serving.http2.frames import frame
from serving.http2.headers import BlockReader
from serving.http2.messages import Refused
from serving.http2.outgoing import MOST_UNSENT
from serving.http2.server import Http2Server

LIMIT = 1_000_000
ARRIVE_WITHIN, KEEP_ALIVE = 3.0, 3600.0  # seconds, as OwnTime tells them
T = TypeVar("T")


class OwnTime(uvloop.Loop):  # type: ignore[misc]
    """Its time passes when a test says so: nobody is slow for want of a processor. What sleeps does
    so by the usual clock."""

    now = 1000.0

    def time(self) -> float:
        return self.now


class Echo:
    """See calls.Calls."""

    limit = LIMIT

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.let_go = asyncio.Event()
        self.begun = 0

    def admit(self, call: Call) -> int:
        if call.authorization == "nobody":
            raise Refused(16, "not you")
        return LIMIT

    def turned_away(self, call: Call, refused: Refused) -> None: ...

    def begin(self, call: Call, message: bytes) -> asyncio.Future[bytes]:
        self.begun += 1
        answer: asyncio.Future[bytes] = self._loop.create_future()
        match call.path.rpartition(b"/")[2]:
            case b"Echo":
                answer.set_result(message)
            case b"Thousand":
                answer.set_result(message * 1000)
            case b"Who":
                answer.set_result((call.authorization or "nobody").encode())
            case b"Wait":
                return asyncio.ensure_future(self._wait(message))
            case _:
                answer.set_exception(Refused(5, 'no such method, "ünknown"'))
        return answer

    async def _wait(self, message: bytes) -> bytes:
        await self.let_go.wait()
        return message

    def refusal(self, error: BaseException) -> Refused:
        return error if isinstance(error, Refused) else Refused(13, repr(error))


class Running:
    """A server in a thread of its own."""

    def __init__(self, room: int | None = None) -> None:
        """`room`: for so many bytes that a client has not taken yet, in each socket."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        if room is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        self.port = self._listener.getsockname()[1]
        self._ready = threading.Event()
        run = partial(uvloop.run, self._run(), loop_factory=OwnTime)
        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        self._ready.wait(PATIENCE)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, OwnTime)
        self.loop = loop
        self.calls, self._end = Echo(self.loop), asyncio.Event()
        server = self.server = Http2Server(
            self._listener,
            self.calls,
            address="",
            arrive_within=ARRIVE_WITHIN,
            keep_alive=KEEP_ALIVE,
        )
        await server.start()
        self._ready.set()
        await self._end.wait()
        await server.stop(PATIENCE)

    def ask(self, what: Callable[[], T]) -> T:
        """In its thread, where nothing changes meanwhile."""

        async def asked() -> T:
            return what()

        return asyncio.run_coroutine_threadsafe(asked(), self.loop).result(PATIENCE)

    def connections(self) -> int:
        return self.ask(self.server.connections)

    def in_flight(self) -> int:
        return self.ask(self.server.in_flight)

    def begun(self) -> int:
        return self.ask(lambda: self.calls.begun)

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is sent meanwhile it finds all at once."""
        entered, go_on = threading.Event(), threading.Event()

        def stay() -> None:
            entered.set()
            go_on.wait(PATIENCE)

        self.loop.call_soon_threadsafe(stay)
        entered.wait(PATIENCE)
        try:
            yield
        finally:
            go_on.set()

    def pass_time(self, seconds: float) -> None:
        def later() -> None:
            self.loop.now += seconds

        self.ask(later)

    def look(self, seconds: float) -> None:
        """So much later at all connections, as it does by itself once a second."""

        def sweep() -> None:
            for each in list(self.server._connections):
                each.sweep(self.loop.time(), call=ARRIVE_WITHIN, idle=KEEP_ALIVE)

        self.pass_time(seconds)
        self.ask(sweep)

    def stop(self) -> None:
        """Begins to; `join` waits."""
        self.loop.call_soon_threadsafe(self._end.set)

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    server = Running()
    yield server
    server.stop()
    server.join()


@pytest.fixture
def channel(server: Running) -> Iterator[grpc.Channel]:
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=unlimited) as channel:
        yield channel


def test_messages_of_every_size_come_back(channel: grpc.Channel) -> None:
    """Around the sizes of frames and windows, and up to the limit."""
    echo = channel.unary_unary("/x.Y/Echo")
    sizes = [0, 1, 16_379, 16_384, 65_530, 65_536, 200_000, LIMIT]
    for size in sizes:
        message = os.urandom(size)
        assert echo(message, timeout=PATIENCE) == message


def test_many_calls_of_many_threads_keep_apart(channel: grpc.Channel) -> None:
    """Each gets its own answer, whatever else the connection carries."""
    echo = channel.unary_unary("/x.Y/Echo")

    def ask(number: int) -> bool:
        message = str(number).encode() * (1 + number % 3000)
        given = (("number", str(number)),)  # which fills the table of headers
        found: bytes = echo(message, metadata=given, timeout=PATIENCE)
        return found == message

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(1500)))


@pytest.mark.parametrize(
    "compression", [grpc.Compression.Gzip, grpc.Compression.Deflate, grpc.Compression.NoCompression]
)
def test_compressed_messages_are_read(channel: grpc.Channel, compression: grpc.Compression) -> None:
    """As clients compress them; what is larger than the limit behind it is refused."""
    echo = channel.unary_unary("/x.Y/Echo")
    message = b"a" * 100_000
    assert echo(message, compression=compression, timeout=PATIENCE) == message
    with pytest.raises(grpc.RpcError) as raised:
        echo(b"a" * (LIMIT + 1), compression=compression, timeout=PATIENCE)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_error_is_told_with_its_status_and_text(channel: grpc.Channel) -> None:
    """And the connection goes on."""
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/x.Y/Nothing")(b"", timeout=PATIENCE)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert raised.value.details() == 'no such method, "ünknown"'
    who = channel.unary_unary("/x.Y/Who")
    assert who(b"", metadata=(("authorization", "Bearer k"),), timeout=PATIENCE) == b"Bearer k"


def test_a_caller_that_gives_up_harms_nobody(server: Running, channel: grpc.Channel) -> None:
    """Its answer goes nowhere; others are answered on the same connection."""
    for _ in range(50):
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary("/x.Y/Wait")(b"x", timeout=0.01)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    server.loop.call_soon_threadsafe(server.calls.let_go.set)
    assert channel.unary_unary("/x.Y/Echo")(b"x", timeout=PATIENCE) == b"x"


def test_a_stop_waits_for_open_calls() -> None:
    """They are answered, and no more are taken."""
    server = Running()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel, Raw(server.port) as other:
        other.begin()
        channel.unary_unary("/x.Y/Echo")(b"", timeout=PATIENCE)
        waiting = channel.unary_unary("/x.Y/Wait").future(b"late", timeout=PATIENCE)
        until(lambda: server.in_flight() == 1)
        server.stop()
        assert other.ends_with() == frames.NO_ERROR  # all are told at once
        server.loop.call_soon_threadsafe(server.calls.let_go.set)
        assert waiting.result() == b"late"
    server.join()


def is_well(server: Running) -> bool:
    with Raw(server.port) as other:
        other.begin()
        other.call(1, b"well?")
        *_, payload = other.next(frames.DATA)
        return payload[5:] == b"well?"


def test_an_answer_waits_for_the_client_to_make_room(server: Running) -> None:
    """Never more than the window says, of the stream and of the connection."""
    with Raw(server.port) as raw:
        raw.begin({frames.INITIAL_WINDOW: 10})
        raw.call(1, b"x" * 95)
        found = b""
        while len(found) < 100:
            *_, payload = raw.next(frames.DATA)
            assert len(payload) == 10
            found += payload
            raw.sendall(frames.window_update(1, 10))
        assert found[5:] == b"x" * 95
        _, flags, _, _ = raw.next(frames.HEADERS)
        assert flags & frames.END_STREAM


@pytest.mark.parametrize("window", [0, frames.MOST])
def test_who_takes_no_answer_is_left(window: int) -> None:
    """Whether it makes no room for answers, or does not read what was sent: its connection ends,
    what waits for it is given up. Not so who takes a little now and then; others are served."""
    server = Running(room=65_536)

    def ask(raw: Raw) -> None:
        """As far as the server takes it, which does not read either while nobody reads it."""
        with suppress(ConnectionError, TimeoutError):
            for stream in range(1, 21, 2):
                raw.head(stream)
                raw.sendall(frame(frames.DATA, 0, stream, struct.pack(">BI", 0, LIMIT)))
                for _ in range(LIMIT // 10_000 - 1):
                    raw.sendall(frame(frames.DATA, 0, stream, bytes(10_000)))
                raw.sendall(frame(frames.DATA, frames.END_STREAM, stream, bytes(10_000)))

    with Raw(server.port, room=4096) as raw, Raw(server.port) as slow, ThreadPoolExecutor() as pool:
        raw.begin({frames.INITIAL_WINDOW: window})
        raw.sendall(frames.window_update(0, frames.MOST - frames.WINDOW))
        asking = pool.submit(ask, raw)
        until(lambda: server.begun() >= (1 if window else 10))  # one is more than it can send
        slow.begin({frames.INITIAL_WINDOW: 0})
        slow.call(1, b"slowly" * 1000)
        deadline = time.monotonic() + PATIENCE
        while server.connections() > 1:
            assert time.monotonic() < deadline
            slow.sendall(frames.window_update(1, 1))
            slow.next(frames.DATA)
            assert is_well(server)
            server.look(0.2)
        asking.result()
        assert server.in_flight() == 1
        slow.sendall(frames.window_update(1, 10_000))
        assert slow.status() == "0"
    server.stop()
    server.join()


def test_who_reads_slowly_gets_every_answer() -> None:
    """All of them share one window: those behind stand still for longer than `arrive_within`, while
    those before them go out."""
    server = Running()
    streams = range(1, 55, 2)
    with Raw(server.port) as raw:
        raw.begin({frames.INITIAL_WINDOW: frames.MOST})
        for stream in streams:
            raw.call(stream, b"x" * 15_000)
        said = [raw.status() for _ in streams[:4]]  # there is room for four to begin with
        for _ in streams[4:]:
            server.look(0.2)
            raw.sendall(frames.window_update(0, 15_100))
            said.append(raw.status())
        assert said == ["0"] * len(streams)
    server.stop()
    server.join()


def test_what_is_still_on_its_way_is_no_fault_of_the_client() -> None:
    """It makes room for more of an answer once it has read what it was sent of it: on a slow line
    that is long after it was sent."""
    server, room, streams = Running(room=65_536), 900_000, range(1, 21, 2)
    with Raw(server.port, room=65_536) as raw:
        raw.begin({frames.INITIAL_WINDOW: room})
        raw.sendall(frames.window_update(0, frames.MOST - frames.WINDOW))
        with server.held():  # it reads no more of who does not read what was sent
            for stream in streams:
                raw.head(stream, "/x.Y/Thousand")
                raw.message(stream, b"x" * 1000)
        left = room * len(streams)
        while left:
            *_, payload = raw.next(frames.DATA)
            left -= len(payload)
            server.look(0.01)
        for stream in streams:
            raw.sendall(frames.window_update(stream, LIMIT))
        assert [raw.status() for _ in streams] == ["0"] * len(streams)
    server.stop()
    server.join()


def test_what_the_server_does_not_read_is_not_late() -> None:
    """While a client takes its answers slowly nothing of its is read: a message that it sent in
    time is answered afterwards."""
    server, room = Running(room=65_536), 65_536
    with Raw(server.port, room) as raw:
        raw.begin({frames.INITIAL_WINDOW: frames.MOST})
        raw.sendall(frames.window_update(0, frames.MOST - frames.WINDOW))
        with server.held():
            raw.head(1, "/x.Y/Thousand")
            raw.message(1, bytes(LIMIT // 1000))
            raw.head(3)
        raw.next(frames.DATA)
        raw.message(3, b"in time")
        for _ in range(25):
            server.look(0.2)
            raw.next(frames.DATA)
        assert server.begun() == 1

        def heard_again() -> None:  # and looked at before anything more is read
            for each in list(server.server._connections):
                each.resume_writing()
                each.sweep(server.loop.time(), call=ARRIVE_WITHIN, idle=KEEP_ALIVE)

        server.ask(heard_again)
        assert (raw.status(), raw.status()) == ("0", "0")
    server.stop()
    server.join()


def test_an_answer_that_has_no_room_harms_no_other() -> None:
    """A call whose client makes no room for its answer is given up; those beside it go on, whether
    they are taken slowly or still computed."""
    server = Running()
    with Raw(server.port) as raw:
        raw.begin({frames.INITIAL_WINDOW: 0})
        raw.call(1, b"never")
        raw.call(3, b"slowly" * 5)
        raw.head(5, "/x.Y/Wait")
        raw.message(5, b"later")
        given_up: list[tuple[int, bytes]] = []
        for _ in range(35):
            raw.sendall(frames.window_update(3, 1))
            kind, _, stream, payload = raw.next(frames.DATA, frames.RST_STREAM)
            if kind == frames.RST_STREAM:
                given_up.append((stream, payload))
                raw.next(frames.DATA)
            server.look(0.13)
        assert given_up == [(1, struct.pack(">I", frames.ENHANCE_YOUR_CALM))]
        assert raw.status() == "0"
        raw.sendall(frames.window_update(5, 100))
        server.loop.call_soon_threadsafe(server.calls.let_go.set)
        assert raw.status() == "0"
    server.stop()
    server.join()


def test_who_takes_next_to_nothing_holds_little_in_memory() -> None:
    """Past MOST_UNSENT, what has waited for `arrive_within` is given up, or the connection where
    the client has said that it has room for so much. What it may leave with us, it gets in the end,
    and so does who takes one answer as slowly, of any size."""
    server, room = Running(room=65_536), 65_536
    streams = range(1, 81, 2)
    kept = -(-MOST_UNSENT // LIMIT)
    half = bytes(MOST_UNSENT // 1600)  # of a message whose answer is larger
    with (
        Raw(server.port) as many,
        Raw(server.port) as one,
        Raw(server.port, room) as many_unread,
        Raw(server.port, room) as one_unread,
    ):
        for client in (many, many_unread, one, one_unread):
            client.begin({frames.INITIAL_WINDOW: frames.MOST})
        for client in (many_unread, one_unread):
            client.sendall(frames.window_update(0, frames.MOST - frames.WINDOW))
        for client in (one, one_unread):
            client.head(1, "/x.Y/Thousand")
            head = struct.pack(">BI", 0, 2 * len(half))
            client.sendall(frame(frames.DATA, 0, 1, head + half))
            client.sendall(frame(frames.DATA, frames.END_STREAM, 1, half))
        with server.held():  # it reads no more of who does not read what was sent
            for client in (many, many_unread):
                for stream in streams:
                    client.head(stream, "/x.Y/Thousand")
                    client.message(stream, bytes(LIMIT // 1000))
        begun = [many.next(frames.HEADERS)[2] for _ in streams]
        assert begun == list(streams)
        for client in (one, many_unread, one_unread):
            client.next(frames.HEADERS)
        deadline = time.monotonic() + PATIENCE
        while server.connections() > 3 or server.in_flight() > kept + 1:
            assert time.monotonic() < deadline, "all of it is held"
            for client in (many, one):
                client.sendall(frames.window_update(0, 1))
            for client in (many_unread, one_unread):
                with suppress(ConnectionError, EOFError):
                    client.next(frames.DATA)
            server.look(0.05)
        for client in (many, one):
            client.sendall(frames.window_update(0, frames.MOST // 2))
        given_up = [many.next(frames.RST_STREAM)[2] for _ in streams[kept:]]
        assert sorted(given_up) == list(streams[kept:])
        assert [many.status() for _ in streams[:kept]] == ["0"] * kept
        assert (one.status(), one_unread.status()) == ("0", "0")
    server.stop()
    server.join()


def test_who_may_not_ask_is_told_before_it_sends_anything(server: Running) -> None:
    """Its message is not waited for, nor kept where it comes; the connection goes on."""
    with Raw(server.port) as raw:
        raw.begin()
        raw.head(1, authorization="nobody")
        assert raw.status() == "16"
        raw.message(1, b"x" * 10_000)
        assert server.in_flight() == 0
        raw.call(3, b"again")
        *_, stream, payload = raw.next(frames.DATA)
        assert (stream, payload[5:]) == (3, b"again")


def test_a_message_in_small_padded_pieces_is_whole(server: Running) -> None:
    """Headers in continuations, data in padded frames, a ping between them."""
    with Raw(server.port) as raw:
        raw.begin()
        block = raw.headers()
        raw.sendall(frame(frames.HEADERS, 0, 1, block[:5]))
        raw.sendall(frame(frames.CONTINUATION, 0, 1, block[5:9]))
        raw.sendall(frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[9:]))
        data = struct.pack(">BI", 0, 300) + b"y" * 300
        for at in range(0, len(data), 50):
            payload = bytes([7]) + data[at : at + 50] + bytes(7)
            raw.sendall(frame(frames.DATA, frames.PADDED, 1, payload))
            raw.sendall(frame(frames.PING, 0, 0, b"12345678"))
        raw.sendall(frame(frames.DATA, frames.END_STREAM, 1))
        assert raw.next(frames.PING) == (frames.PING, frames.ACK, 0, b"12345678")
        *_, payload = raw.next(frames.DATA)
        assert payload[5:] == b"y" * 300


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", frames.PROTOCOL_ERROR),
        (frame(frames.DATA, 0, 5, b"x"), frames.PROTOCOL_ERROR),
        (frame(frames.HEADERS, frames.END_HEADERS, 2, b"\x88"), frames.PROTOCOL_ERROR),
        (frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff\xff\xff"), frames.COMPRESSION_ERROR),
        (frame(frames.CONTINUATION, 0, 1, b""), frames.PROTOCOL_ERROR),
        (frame(frames.HEADERS, 0, 1) + frame(frames.PING, 0, 0, bytes(8)), frames.PROTOCOL_ERROR),
        (frame(frames.HEADERS, frames.PADDED, 1, b"\x09"), frames.PROTOCOL_ERROR),
        (frame(frames.WINDOW_UPDATE, 0, 0, b"\x00"), frames.FRAME_SIZE_ERROR),
        (frame(frames.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), frames.FLOW_CONTROL_ERROR),
        (frame(frames.SETTINGS, 0, 0, b"\x00"), frames.FRAME_SIZE_ERROR),
        (frame(frames.PUSH_PROMISE, 0, 1, bytes(4)), frames.PROTOCOL_ERROR),
        (frame(frames.PING, 0, 0, bytes(8)) * 20_000, frames.ENHANCE_YOUR_CALM),
        (
            frame(frames.HEADERS, 0, 1) + frame(frames.CONTINUATION, 0, 1, bytes(100)) * 300,
            frames.ENHANCE_YOUR_CALM,
        ),
        (
            frame(frames.HEADERS, frames.END_HEADERS, 1, hpack.Encoder().encode(HEADERS))
            + frame(frames.DATA, 0, 1) * 20_000,
            frames.ENHANCE_YOUR_CALM,
        ),
        (b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", frames.FRAME_SIZE_ERROR),
    ],
)
def test_who_breaks_the_protocol_is_told_and_left(server: Running, sent: bytes, code: int) -> None:
    """With the code that fits; nobody else notices."""
    with Raw(server.port) as raw:
        if not sent.startswith(b"GET"):
            raw.begin()
        with suppress(BrokenPipeError, ConnectionResetError):
            raw.sendall(sent)
        try:
            assert raw.ends_with() == code
        except (ConnectionResetError, EOFError):  # the rest of a flood was not read
            assert code == frames.ENHANCE_YOUR_CALM
    assert is_well(server)


def test_more_calls_than_may_be_open_are_refused(server: Running) -> None:
    """By their streams; those that are open go on."""
    with Raw(server.port) as raw:
        raw.begin()
        for stream in range(1, 2 * 1001, 2):
            raw.sendall(frame(frames.HEADERS, frames.END_HEADERS, stream, raw.headers()))
        _, _, stream, payload = raw.next(frames.RST_STREAM)
        assert (stream, payload) == (2001, struct.pack(">I", frames.REFUSED_STREAM))
    assert is_well(server)


def test_a_message_that_does_not_come_in_time_is_given_up(server: Running) -> None:
    """With DEADLINE_EXCEEDED, gRPC's 4."""
    with Raw(server.port) as raw:
        raw.begin()
        raw.call(1, b"half", end=0)
        until(lambda: server.in_flight() == 1)
        server.pass_time(ARRIVE_WITHIN + 1)
        _, flags, stream, block = raw.next(frames.HEADERS)
        assert (stream, flags & frames.END_STREAM) == (1, frames.END_STREAM)
        assert text_of(hpack.Decoder().decode(block))["grpc-status"] == "4"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 2**32))
def test_nothing_that_is_sent_stops_the_server(noise: bytes, seed: int) -> None:
    """Noise after the preface, and right frames with bytes changed."""
    server = _shared()
    chance = random.Random(seed)
    with Raw(server.port) as raw:
        raw.begin()
        whole = bytearray(frame(frames.HEADERS, frames.END_HEADERS, 1, raw.headers()))
        whole += frame(frames.DATA, frames.END_STREAM, 1, struct.pack(">BI", 0, 4) + b"four")
        for _ in range(chance.randint(0, 4)):
            whole[chance.randrange(len(whole))] = chance.randrange(256)
        raw.sendall(bytes(whole) + noise)
    assert is_well(server)


_ONE: list[Running] = []


def _shared() -> Running:
    """Of all examples, since a fixture may not be given to each."""
    if not _ONE:
        _ONE.append(Running())
    return _ONE[0]


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    yield
    for server in _ONE:
        server.stop()
        server.join()


names = st.sampled_from(["grpc-timeout", "x-a", "x-b", "authorization", ":path", "te"])
lists = st.lists(st.tuples(names, st.text("abcxyz0", max_size=6)), min_size=1, max_size=5)


@settings(deadline=None)
@given(st.lists(st.tuples(lists, st.booleans()), max_size=20), st.sampled_from([0, 64, 4096]))
def test_headers_are_read_as_without_a_memory(
    sent: list[tuple[list[tuple[str, str]], bool]], size: int
) -> None:
    """Blocks repeated or new, with a table of any size: always what a plain decoder reads."""
    encoder, plain, reader = hpack.Encoder(), hpack.Decoder(), BlockReader()
    encoder.header_table_size = size
    for pairs, huffman in sent + sent:
        block = encoder.encode(pairs, huffman=huffman)
        expected = {bytes(name): bytes(value) for name, value in plain.decode(block, raw=True)}
        assert reader.read(block) == expected
