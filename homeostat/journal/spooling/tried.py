"""Up to which number commits were tried from a spool: what a restart has to know."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from homeostat.journal.delta.disk_sync import sync_folder
from homeostat.journal.spooling.segments import KINDS, Kind


class Tried:
    """A segment with a higher number than its kind's was never part of a commit.

    The numbers are raised before a commit is tried. They are written in their place, at a fixed
    width, which a full disk takes too: rows must be able to leave it. They lie in one sector;
    should a power loss tear it, they count as 0, and rows may come twice, but none is lost.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers: dict[Kind, int] = dict.fromkeys(KINDS, 0)

    def load(self) -> None:
        try:
            found = self._path.read_text().split()
        except FileNotFoundError:
            with suppress(OSError):  # a full disk: it is tried again before the first commit
                self._write(self._numbers)
            return
        if len(found) == len(KINDS) and all(each.isdigit() for each in found):
            self._numbers = dict(zip(KINDS, map(int, found), strict=True))

    def up_to(self, kind: Kind) -> int:
        return self._numbers[kind]

    def raise_to(self, kind: Kind, number: int) -> None:
        """On the disk when it returns. Raises OSError."""
        if number > self._numbers[kind]:
            raised = {**self._numbers, kind: number}
            self._write(raised)
            self._numbers = raised

    def _write(self, numbers: dict[Kind, int]) -> None:
        new = not self._path.exists()
        text = "".join(f"{numbers[kind]:020d}\n" for kind in KINDS)
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.pwrite(handle, text.encode(), 0)
            os.fsync(handle)
        finally:
            os.close(handle)
        if new:
            sync_folder(self._path.parent)
