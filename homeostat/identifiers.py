"""Ids that sort by time: UUID version 7 (RFC 9562)."""

from __future__ import annotations

import os
import time
import uuid

import numpy as np

LONGEST_ID = 128  # characters of a caller's own id
_DRAWN = 4096  # ids whose random part is drawn at once
_MANY = 24  # from here on, making ids all at once takes less time
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
# Characters as NumPy has them in texts, four bytes each; two hexadecimal digits a byte, as one.
_PAIRS = np.array([list(f"{byte:02x}".encode()) for byte in range(256)], np.uint32)
_DIGITS = _PAIRS.view(np.uint64).ravel()
_VARIANTS = np.array(list(b"89ab"), np.uint32)


def uuid7(now_ns: int | None = None, random: bytes | None = None) -> str:
    """A new id; 48 bits of milliseconds and 12 of their parts, so that ids sort by time."""
    milliseconds, rest = divmod(time.time_ns() if now_ns is None else now_ns, 1_000_000)
    noise = int.from_bytes(os.urandom(8) if random is None else random, "big")
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    # parts of a millisecond keep the events of one transaction in their order (RFC 9562, 6.2)
    value |= 0x7 << 76 | (rest * 4096 // 1_000_000) << 64 | 0b10 << 62 | (noise & (1 << 62) - 1)
    return str(uuid.UUID(int=value))


def uuid7_batch(count: int) -> list[str]:
    """Many ids of one moment for one system call of randomness: the server's hot path."""
    head = f"{time.time_ns() // 1_000_000 & 0xFFFF_FFFF_FFFF:012x}"
    head = f"{head[:8]}-{head[8:]}-7"
    random = os.urandom(count * 10)
    if count >= _MANY:
        return _all_at_once(head, random, count)
    noise, variant = random.hex(), _VARIANT
    return [
        f"{head}{noise[i : i + 3]}-{variant[noise[i + 3]]}{noise[i + 4 : i + 7]}"
        f"-{noise[i + 7 : i + 19]}"
        for i in range(0, count * 20, 20)
    ]


class Identifiers:
    """Makes what uuid7_batch does in a third of the time: what is random about the next ids is
    drawn beforehand, many at once. Thread-safe; of no use in a child that was forked from here."""

    def __init__(self) -> None:
        self._rests: list[str] = []

    def make(self, count: int) -> list[str]:
        head = f"{time.time_ns() // 1_000_000 & 0xFFFF_FFFF_FFFF:012x}"
        head, take = f"{head[:8]}-{head[8:]}-7", self._rests.pop
        try:
            return [head + take() for _ in range(count)]
        except IndexError:
            drawn = _all_at_once("", os.urandom(10 * _DRAWN), _DRAWN)
            if count > len(drawn):
                return uuid7_batch(count)
            self._rests = drawn
            return self.make(count)


def uuid7_series(count: int, milliseconds: int, random: bytes) -> list[str]:
    """Ids of one moment, the same from the same `random`: ten bytes an id."""
    head = f"{milliseconds & 0xFFFF_FFFF_FFFF:012x}"
    return _all_at_once(f"{head[:8]}-{head[8:]}-7", random, count) if count else []


def _all_at_once(head: str, random: bytes, count: int) -> list[str]:
    """Nine bytes of noise for each id, and two bits of a tenth for its variant."""
    noise = np.frombuffer(random, np.uint8).reshape(count, 10)
    digits = _DIGITS[noise[:, :9]].view(np.uint32)
    first = f"{head}000-8000-000000000000".encode("utf-32-le")
    texts = np.empty((count, len(first) // 4), np.uint32)
    texts[:] = np.frombuffer(first, np.uint32)
    rest = texts[:, len(head) :]
    rest[:, :3] = digits[:, :3]
    rest[:, 4] = _VARIANTS[noise[:, 9] & 3]
    rest[:, 5:8] = digits[:, 3:6]
    rest[:, 9:] = digits[:, 6:]
    made: list[str] = texts.view(f"U{texts.shape[1]}").ravel().tolist()
    return made


def milliseconds_of(identifier: str) -> int | None:
    """The time inside an id of ours; None for anything else (a caller's own id)."""
    try:
        value = uuid.UUID(identifier)
    except ValueError:
        return None
    return value.int >> 80 if value.version == 7 else None
