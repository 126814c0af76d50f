"""What was answered lately, by input and version, up to a number of bytes: the one used longest ago
goes first."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Any

import msgspec

from homeostat.model_runtime.contract import Outputs
from serving.requests.parsing import Rows

ENTRY = 400  # bytes that an entry takes besides what it holds
_VALUE = 60  # bytes of one prediction, as Python keeps it
_DIGEST = 32
_pack = msgspec.msgpack.Encoder().encode

Input = bytes


def input_of(rows: Rows) -> Input:
    """Equal for equal rows of one version: without ids and keys, which are the caller's own."""
    digest = hashlib.blake2b(rows.count.to_bytes(8, "big"), digest_size=_DIGEST)
    if rows.matrix is not None:
        digest.update(rows.matrix.tobytes())
    else:
        columns = rows.columns or {}
        digest.update(_pack([list(columns[name]) for name in sorted(columns)]))
    return digest.digest()


class Memory:
    """Shared by the versions of a model, and used from all threads that predict."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._found: OrderedDict[tuple[str, Input], tuple[Outputs, int]] = OrderedDict()
        self._using = threading.Lock()
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    def get(self, version: str, given: Input) -> Outputs | None:
        key = version, given
        with self._using:
            found = self._found.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._found.move_to_end(key)
            return found[0]

    def put(self, version: str, given: Input, outputs: Outputs) -> None:
        """What alone is larger than the limit is not kept."""
        key, size = (version, given), size_of(outputs)
        with self._using:
            self._drop(key)
            if size > self._limit:
                return
            self._found[key] = outputs, size
            self.bytes += size
            while self.bytes > self._limit:
                self._drop(next(iter(self._found)))

    def forget(self, version: str) -> None:
        """It is leaving; nobody will ask for what it said."""
        with self._using:
            for key in [key for key in self._found if key[0] == version]:
                self._drop(key)

    def _drop(self, key: tuple[str, Input]) -> None:
        found = self._found.pop(key, None)
        if found is not None:
            self.bytes -= found[1]


def size_of(outputs: Outputs) -> int:
    """Bytes, about."""
    arrays: list[Any] = [outputs.probabilities, outputs.embedding]
    held: int = sum(each.nbytes for each in arrays if each is not None)
    return ENTRY + held + _VALUE * len(outputs.predictions)
