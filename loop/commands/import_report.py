"""What went wrong with lines of an imported file: all in a report, the first on the terminal."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from loop.commands.common import say

SHOWN = 10  # lines on the terminal; the others are in the report


class ImportReport:
    """Every line that went wrong, in a file; the first few on the terminal."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._write: Callable[[tuple[int, str, str]], object] | None = None
        self._first: list[tuple[int, str, str]] = []
        self._count = 0

    @contextmanager
    def open(self) -> Iterator[ImportReport]:
        """The file appears when all is told."""
        if self._path is None:
            yield self
            return
        partial = self._path.with_name(f".{self._path.name}.part")
        with partial.open("w", newline="", encoding="utf-8", errors="replace") as file:
            writer = csv.writer(file)
            writer.writerow(("line", "id", "problem"))
            self._write = writer.writerow
            yield self
        partial.replace(self._path)

    def add(self, line: int, identifier: str, problem: str) -> None:
        self._count += 1
        if len(self._first) < SHOWN:
            self._first.append((line, identifier, problem))
        if self._write is not None:
            self._write((line, identifier, problem))

    def show(self) -> None:
        if self._first:
            say("line by line:")
        for line, identifier, problem in self._first:
            say(f"  line {line} ({identifier or 'no id'}): {problem}")
        if self._path is not None:
            say(f"all {self._count} of them: {self._path}")
        elif self._count > len(self._first):
            say(f"  … and {self._count - len(self._first)} more: see them with --report")
