"""New connections of a port that several workers share: to the one that has the fewest."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

from serving.sharing.seats import Seats

log = logging.getLogger(__name__)

MOST_TURNS = 10  # so often a connection is left to others at most: they may be busy
TURN = 0.002  # seconds
IDLE = 0.02  # seconds between two looks of a worker that has nothing to serve yet
OUT_OF_FILES = 0.1  # seconds


class Acceptor:
    """Takes connections from a listening socket, as far as they are this worker's.

    A worker without a version takes none as long as another one has a version.
    """

    def __init__(
        self, listener: socket.socket, seats: Seats, seat: int, ready: Callable[[], bool]
    ) -> None:
        self.connections: set[Any] = _Counted(self.publish)
        self._listener = listener
        self._seats = seats
        self._seat = seat
        self._ready = ready
        self._left = 0  # times in a row that a connection was left to others
        self._coming: set[asyncio.Task[Any]] = set()
        self._open = False
        self._make: Callable[[], asyncio.Protocol]
        self._ssl: ssl.SSLContext | None

    def start(
        self, make_protocol: Callable[[], asyncio.Protocol], context: ssl.SSLContext | None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._make, self._ssl, self._open = make_protocol, context, True
        self.publish()
        self._watch()

    def close(self) -> None:
        """Connections that are there stay; what nobody has taken waits for another worker."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._listener.fileno())
            self._seats.leave(self._seat)

    async def wait_closed(self) -> None:
        if self._coming:
            await asyncio.wait(self._coming)

    def _watch(self) -> None:
        if self._open:
            self._loop.add_reader(self._listener.fileno(), self._take)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later(seconds, self._watch)

    def publish(self) -> None:
        """How many this worker has, and whether it can serve them."""
        if self._open:
            count = len(self.connections) + len(self._coming)
            self._seats.take(self._seat, count, waiting=not self._ready())

    def _take(self) -> None:
        self.publish()
        ahead = self._seats[self._seat] - self._seats.least()
        if ahead > 0:
            ready = self._ready()
            # the further ahead, the longer: what others miss while they are busy evens out
            if not ready or self._left < min(MOST_TURNS, 1 + ahead):
                self._left += 1
                self._pause(TURN if ready else IDLE)
                return
        self._left = 0
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            log.error("a connection cannot be taken: %s", error)
            self._pause(OUT_OF_FILES)
            return
        connection.setblocking(False)
        self._begin(connection)

    def _begin(self, connection: socket.socket) -> None:
        task = self._loop.create_task(
            self._loop.connect_accepted_socket(self._make, connection, ssl=self._ssl)
        )
        self._coming.add(task)
        self.publish()
        task.add_done_callback(self._begun)

    def _begun(self, task: asyncio.Task[Any]) -> None:
        self._coming.discard(task)
        if not task.cancelled():
            task.exception()  # a handshake that failed is its caller's affair
        self.publish()


class _Counted(set[Any]):
    """The connections, as uvicorn keeps them; each change is made known."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__()
        self._changed = changed

    def add(self, connection: Any) -> None:
        super().add(connection)
        self._changed()

    def discard(self, connection: Any) -> None:
        super().discard(connection)
        self._changed()
