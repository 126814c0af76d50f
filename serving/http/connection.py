"""uvicorn's connection, with a short way for predictions.

An ASGI request costs three times what the rest of the server does for a small model: a scope, a
task, two events and six messages. Here a prediction goes from the parser to the queue and from
the queue to the socket. Everything else, and whatever is unusual about a prediction (pipelined,
`Expect`, an upgrade), takes uvicorn's own way to the ASGI application, which has the same doors.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from time import perf_counter
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from homeostat.errors import HomeostatError
from serving.http.exchange import Ended, Exchange
from serving.http.heads import MOST_BYTES, MOST_HEADERS, too_much
from serving.http.lines import CLOSING, OK, CommonLines, written
from serving.http2.unsent import Unsent
from serving.requests.body import too_large
from serving.requests.door import Door, plainly
from serving.requests.forms import Written, parts_of
from serving.requests.later import Later
from serving.requests.problem import Refused, TooLarge, problem_of
from serving.requests.unreadable import explained

log = logging.getLogger(__name__)

Doors = Mapping[bytes, Door]


class Connection(HttpToolsProtocol):
    """One client's, as long as it stays."""

    cycle: Any
    transport: Any

    def __init__(
        self,
        doors: Doors,
        *,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._doors = doors
        self._quiet_since: float | None = None  # when the last answer went out
        self._reading_since: float | None = None  # since when a request has been coming in
        self._unread: int | None = None  # bytes of a head, or behind a body, without an end yet
        self._measures_heads = False  # only where one may be larger than a read
        self._unsent = Unsent()
        self._common = CommonLines(server_state)
        self._stays = True  # until the server is about to end

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._quiet_since = self.loop.time()

    def end_if_overdue(self, now: float, *, request: float, idle: float) -> None:
        """End a connection whose request has been coming in, or whose client has taken nothing of
        its answer, or that was unused, for longer than so many seconds."""
        transport = self.transport
        if self._unsent.stands_for(transport.get_write_buffer_size(), now) > request:
            transport.abort()  # to close would wait for the client
        elif self._reading_since is not None:
            if now - self._reading_since > request:
                self._end_late(request)
        elif self._quiet_since is not None and now - self._quiet_since > idle:
            transport.close()

    @property
    def busy(self) -> bool:
        """A request is under way."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete

    def retire(self) -> None:
        """The next answer is the last one: its caller is told so, and the connection ends."""
        self._stays = False
        self._let_go()

    def _let_go(self) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False

    def _end_late(self, request: float) -> None:
        exchange = self.cycle
        if type(exchange) is Exchange and not exchange.response_complete:
            exchange.keep_alive = False
            message = f"the request took over {request:g} s to arrive (serving.arrive_within)"
            self._refuse(exchange, Refused(message, status=408))
        else:
            self.transport.close()

    # What comes
    def data_received(self, data: bytes) -> None:
        """As uvicorn's, in one call instead of three."""
        if len(data) > MOST_BYTES:
            self._measures_heads = True
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except HttpParserError:
            self.logger.warning("no HTTP: the connection is ended")
            self.send_400_response("Invalid HTTP request received.")
        except HttpParserUpgrade:
            self._unsupported_upgrade_warning()
        if self._reading_since is not None:
            self._wait_on(len(data))

    def _wait_on(self, more: int) -> None:
        """A request goes on after a read of so many bytes. They count as a head's, or as what may
        follow a body, where it did not begin with them and they brought nothing of a body."""
        self._measures_heads = True
        self._unread = 0 if self._unread is None else self._unread + more
        self._is_bounded(self._unread)

    def _is_bounded(self, unread: int) -> bool:
        """Or nothing more of this client is read."""
        error = too_much(self.url, self.headers, unread)
        if error is None:
            return True
        # an answer would be taken for that of a request before this one
        if not self.busy and not self.transport.is_closing():
            door = self._doors.get(self.url)
            refusal = plainly(problem_of(error)) if door is None else door.refuse(error)
            self.transport.write(b"".join(written(refusal, self._common.now(), last=True)))
        cycle = self.cycle
        if cycle is not None:  # who answers it must not wait for the rest of its body
            cycle.disconnected = True
            cycle.message_event.set()
        self.cycle, self.headers = Ended(), []
        self.transport.close()
        return False

    def eof_received(self) -> bool:  # type: ignore[override]
        """Who has said everything still gets an answer; but TLS has no such end of one side."""
        if not self.busy or self._reading_since is not None or self.scheme == "https":
            return False
        self._let_go()
        return True

    # Parser callbacks
    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._unread = None
        self._reading_since, self._quiet_since = self.loop.time(), None

    def on_headers_complete(self) -> None:
        if self._measures_heads or len(self.headers) > MOST_HEADERS:  # noqa: SIM102 - it is faster
            if not self._is_bounded(0):
                return
        door = self._doors.get(self.url)
        if door is None or not self._is_plain():
            self._begin_by_asgi()
            return
        parser = self.parser
        exchange = self.cycle = Exchange(
            door,
            keep_alive=self._stays
            and parser.get_http_version() != "1.0"
            and parser.should_keep_alive(),
        )
        try:
            exchange.told = door.admit(self.headers)
        except TooLarge as error:
            self._refuse(exchange, error)
        except HomeostatError as error:
            exchange.error = error

    def _is_plain(self) -> bool:
        cycle = self.cycle
        return (
            self.parser.get_method() == b"POST"
            and (cycle is None or cycle.response_complete)
            and not self.expect_100_continue
            and not self.parser.should_upgrade()
            and not self.pipeline
        )

    def _begin_by_asgi(self) -> None:
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expect
        self.scope["headers"] = headers
        super().on_headers_complete()
        if not self._stays:
            self._let_go()

    def on_body(self, body: bytes) -> None:
        self._unread = None
        exchange = self.cycle
        if type(exchange) is not Exchange:
            super().on_body(body)
            return
        if exchange.response_complete:  # refused: what still comes is of no use
            return
        exchange.size += len(body)
        if exchange.size <= exchange.door.limit:
            if exchange.error is None:
                exchange.body.append(body)
        elif exchange.size > 2 * exchange.door.limit:
            # Up to here it was read and dropped: many clients look at the answer only once they
            # have sent everything.
            self._refuse(exchange, too_large(exchange.door.limit))

    def on_message_complete(self) -> None:
        self._reading_since = None
        exchange = self.cycle
        if type(exchange) is not Exchange:
            super().on_message_complete()
            return
        if exchange.response_complete:
            return
        door, started = exchange.door, perf_counter()
        try:
            if exchange.error is not None:
                raise exchange.error
            if exchange.size > door.limit:
                raise too_large(door.limit)
            parts = exchange.body
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            answer = door.answer(body, exchange.told)
        except HomeostatError as error:
            self._refuse(exchange, explained(error, self.headers))
        except Exception as error:
            log.exception("a prediction failed unexpectedly")
            self._refuse(exchange, error)
        else:
            answer.add_done_callback(partial(self._answer, exchange, started))

    # Answers
    def _answer(self, exchange: Exchange, started: float, answer: Later[Written]) -> None:
        error = answer.exception()
        if error is not None:
            alone = exchange is self.cycle and self._reading_since is None
            # else they may be those of the request after it
            self._refuse(exchange, explained(error, self.headers) if alone else error)
            return
        exchange.door.answered(started)
        body = answer.result()
        if type(body) is bytes:
            head = (OK if exchange.keep_alive else CLOSING) % len(body)
            self._send(exchange, [STATUS_LINE[200], self._common.now(), head, body])
            return
        body, headers = parts_of(body)
        if not exchange.keep_alive:
            headers.append((b"connection", b"close"))
        lines = [b"%b: %b\r\n" % each for each in headers]
        self._send(exchange, [STATUS_LINE[200], self._common.now(), *lines, b"\r\n", body])

    def _refuse(self, exchange: Exchange, error: BaseException) -> None:
        refusal = exchange.refused(error)
        self._send(exchange, written(refusal, self._common.now(), last=not exchange.keep_alive))

    def _send(self, exchange: Exchange, parts: list[bytes]) -> None:
        exchange.response_complete = True
        transport = self.transport
        if exchange.disconnected or transport.is_closing():
            return
        transport.write(b"".join(parts))
        self._quiet_since = self.loop.time()
        if self.pipeline and exchange.keep_alive:
            super().on_response_complete()  # which begins with the next in line
            return
        self.server_state.total_requests += 1
        if not exchange.keep_alive:
            transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._quiet_since = self.loop.time()

    # A client that sends and does not read
    def pause_writing(self) -> None:
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.flow.resume_reading()
