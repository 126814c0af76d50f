"""Callers that ask at a steady rate whatever comes of it, and remember what each was told."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

LIMIT = 30.0  # seconds, for one answer


@dataclass
class Told:
    """What became of the requests so far."""

    logged: list[str] = field(default_factory=list)  # ids of rows answered with 200
    refused: list[str] = field(default_factory=list)  # answered with 503 and Retry-After
    others: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0  # seconds

    @property
    def rows(self) -> int:
        return len(self.logged) + len(self.refused)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One keep-alive connection; a client that costs little beside the server it watches."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Raises OSError or asyncio.IncompleteReadError where no answer comes."""
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        head = f"{method} {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-length: {len(body)}\r\n"
        self._writer.write(head.encode() + b"\r\n" + body)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines[1:] if line)
        headers = {name.lower(): value for name, value in pairs}
        content = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(lines[0].split()[1]), headers, content)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


class Steady:
    """`rate` requests a second by `callers` callers, each of the same rows under new ids."""

    def __init__(
        self, url: str, rows: Sequence[Sequence[float]], *, rate: float, callers: int
    ) -> None:
        self._url = url
        self._rows = rows
        self._period = callers / rate
        self._callers = callers
        self._stopping = False
        self.told = Told()

    async def run(self) -> None:
        """Until stopped; what is under way is answered first."""
        await asyncio.gather(*(self._call(number) for number in range(self._callers)))

    def stop(self) -> None:
        self._stopping = True

    async def _call(self, number: int) -> None:
        connection = Connection(self._url)
        begin = time.monotonic() + self._period * number / self._callers
        turn = 0
        while not self._stopping:
            wait = begin + turn * self._period - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            else:  # a late caller does not catch up
                begin = time.monotonic() - turn * self._period
            await self._ask(connection, [f"{number}-{turn}-{i}" for i in range(len(self._rows))])
            turn += 1
        connection.close()

    async def _ask(self, connection: Connection, ids: list[str]) -> None:
        body = json.dumps({"rows": self._rows, "ids": ids}).encode()
        began = time.monotonic()
        try:
            async with asyncio.timeout(LIMIT):
                answer = await connection.ask("POST", "/predict", body)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.told.others[type(error).__name__] += 1
            connection.close()
            return
        self.told.slowest = max(self.told.slowest, time.monotonic() - began)
        if answer.status == 200:
            self.told.logged += ids
        elif answer.status == 503 and "retry-after" in answer.headers:
            self.told.refused += ids
        else:
            self.told.others[f"status {answer.status}: {answer.body[:200]!r}"] += 1
