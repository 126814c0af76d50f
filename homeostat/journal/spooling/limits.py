"""How much may wait for the tables, and what happens to a row that finds no room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BOUNDLESS = 1 << 62


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Settings journal.memory, journal.spool and journal.when_full, in bytes."""

    memory: int = BOUNDLESS  # durability "async": rows that wait for the spool
    spool: int = BOUNDLESS  # rows on the local disk that wait for their commit
    when_full: Literal["block", "drop"] = "block"
