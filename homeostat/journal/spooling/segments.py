"""One spool file: an Arrow IPC stream that may end anywhere, since its writer may be killed."""

from __future__ import annotations

import os
import struct
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from homeostat.journal.delta.disk_sync import sync_folder
from homeostat.journal.encoding import constants
from homeostat.journal.encoding.message import PREFIX, Layout, body_bytes

Kind = Literal["predictions", "labels"]
KINDS: tuple[Kind, ...] = ("predictions", "labels")
REJECTED = "rejected"  # the folder of rows that fit no table, kept for a person


@dataclass(eq=False)
class Segment:
    """Rows on their way to one table; its number is the version they are committed under."""

    path: Path
    seq: int
    kind: Kind
    since: datetime  # when its first row came
    attempted: bool  # a commit may have happened
    bytes: int = 0
    rows: int = 0  # of this process; a left-over's are not known
    left_over: bool = False  # by an earlier process
    damaged: bool = False  # not only at its end, where a kill tears it

    @property
    def waiting(self) -> int:
        """Predictions this process took."""
        return self.rows if self.kind == "predictions" else 0


def path_of(folder: Path, seq: int, kind: Kind) -> Path:
    return folder / f"{seq:020d}-{kind}.arrows"


def parse(path: Path) -> tuple[int, Kind] | None:
    """The number and kind in a file's name; None for any other file."""
    seq, _, kind = path.stem.partition("-")
    if path.suffix != ".arrows" or not seq.isdigit():
        return None
    if kind == "predictions":
        return int(seq), "predictions"
    return (int(seq), "labels") if kind == "labels" else None


class OpenSegment:
    """Appends record batches of one schema, one unbuffered write each. Thread-safe."""

    def __init__(self, segment: Segment, layout: Layout) -> None:
        self.segment = segment
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(segment.path, flags, 0o644)
        self._named = False  # on the disk, in its folder
        self._closed = False
        self.broken = False  # what was refused may still be at its end: it takes no more
        self._lock = threading.Lock()
        try:
            self._append(layout.start)
        except OSError:
            self.close()
            segment.path.unlink(missing_ok=True)
            raise

    def write(self, data: bytes, rows: int, *, sync: bool) -> bool:
        """In the kernel's page cache when it returns, so that a kill of this process loses
        nothing; with `sync` on the disk. False when it was closed meanwhile, and takes no more."""
        with self._lock:
            if self._closed or self.broken:
                return False
            before = self.segment.bytes
            self._append(data)
            if sync:
                self._sync(before)
            self.segment.rows += rows
            return True

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._file)

    def _sync(self, before: int) -> None:
        try:
            os.fsync(self._file)
            if not self._named:
                sync_folder(self.segment.path.parent)
                self._named = True
        except OSError:
            self._cut(before)  # what is refused may not turn up later
            raise

    def _append(self, message: bytes) -> None:
        before = self.segment.bytes
        try:
            written = os.write(self._file, message)
            self.segment.bytes += written
            while written < len(message):  # a disk that is nearly full takes a part
                more = os.write(self._file, memoryview(message)[written:])
                self.segment.bytes += more
                written += more
        except OSError:
            # half a message in the middle would hide every row after it
            self._cut(before)
            raise

    def _cut(self, size: int) -> None:
        self.segment.bytes = size
        try:
            os.ftruncate(self._file, size)
        except OSError:
            self.broken = True


def read(path: Path, most: int | None = None) -> Any | None:
    """The whole record batches of a segment as one table, without a torn tail; None if none.
    `most` is how many of its bytes count."""
    size = path.stat().st_size if most is None else min(most, path.stat().st_size)
    if size == 0:
        return None
    with pa.memory_map(str(path)) as file:
        source = pa.BufferReader(file.read_buffer(size))
        try:
            # all at once: between two batches a busy thread may keep the interpreter for 5 ms
            return _whole(pa.ipc.open_stream(source).read_all())
        except (pa.ArrowException, OSError):
            pass
        source.seek(0)
        try:
            stream = pa.ipc.open_stream(source)
        except (pa.ArrowException, OSError):
            return None  # killed while it wrote the schema
        batches = []
        while True:
            try:
                batches.append(stream.read_next_batch())
            except StopIteration:
                break
            except (pa.ArrowException, OSError):
                break  # killed while it wrote this batch, so that it was never acknowledged
        return _whole(pa.Table.from_batches(batches)) if batches else None


def damaged(path: Path) -> bool:
    """Whether it ends elsewhere than a writer that was killed leaves it: behind a whole message, or
    within one."""
    size = path.stat().st_size
    at = 0
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            prefix = file.read(PREFIX)
            if not b"\xff\xff\xff\xff".startswith(prefix[:4]):
                return True
            head = int.from_bytes(prefix[4:], "little")
            if len(prefix) < PREFIX or at + PREFIX + head > size:
                return False
            try:
                body = body_bytes(prefix + file.read(head)) if head else 0
            except struct.error:
                return True
            if body < 0:
                return True
            at += PREFIX + head + body
    return False


def _whole(data: Any) -> Any | None:
    """In one piece each column: what follows would otherwise be done for each batch."""
    return constants.spread(data.combine_chunks()) if data.num_rows else None
