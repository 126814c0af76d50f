"""Ids that sort by time: UUID version 7 (RFC 9562)."""

from __future__ import annotations

import os
import time
import uuid

LONGEST_ID = 128  # characters of a caller's own id


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
    noise = os.urandom(count * 10).hex()
    return [
        f"{head}{noise[i : i + 3]}-{'89ab'[int(noise[i + 3], 16) & 3]}{noise[i + 4 : i + 7]}"
        f"-{noise[i + 7 : i + 19]}"
        for i in range(0, count * 20, 20)
    ]


def milliseconds_of(identifier: str) -> int | None:
    """The time inside an id of ours; None for anything else (a caller's own id)."""
    try:
        value = uuid.UUID(identifier)
    except ValueError:
        return None
    return value.int >> 80 if value.version == 7 else None
