"""An input as parts: ranges of rows (or bytes) that are read, answered and written by themselves.

The same input is always cut in the same way, so that a part's name says what is in it: a run that
was killed finds by its names what it has done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

PART_BYTES = 32 << 20  # of values in memory, about
PART_ROWS = 100_000  # at most


@dataclass(frozen=True, kw_only=True)
class Part:
    """`start` and `stop` are rows of the file, or bytes of a CSV file."""

    number: int
    file: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.file:05d}-{self.start:012d}-{self.stop:012d}"

    @property
    def size(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row without an answer; `row` counts from 0 within its part."""

    row: int
    column: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some rows of a part. `rows[i]` is the place in the part of the batch's row i."""

    batch: Any  # pyarrow.RecordBatch
    rows: Sequence[int]
    bad: tuple[BadRow, ...] = ()  # rows that could not even be read: they are not in the batch


class Reader(Protocol):
    """An input open in one process. Parts in rising order are read fastest."""

    def blocks(self, part: Part, rows: int) -> Iterator[Block]:
        """The part in blocks of at most so many rows."""


class Input(Protocol):
    """What is to be scored. Small and picklable: each worker process gets one."""

    @property
    def schema(self) -> Any:
        """Names and types of the columns."""

    @property
    def files(self) -> Sequence[str]:
        """Paths, for people."""

    @property
    def total(self) -> int:
        """The sizes of all parts together."""

    @property
    def state(self) -> str:
        """Changes where the input changes."""

    def parts(self) -> Iterator[Part]: ...

    def open(self) -> Reader: ...


def rows_of_a_part(rows: int, size: int) -> int:
    """How many rows of so many bytes together fit into one part."""
    per_row = max(1, size // max(1, rows))
    return max(1, min(PART_ROWS, PART_BYTES // per_row))
