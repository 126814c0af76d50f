"""Which versions may be in a GPU's memory together, as a decision: nothing here talks to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# A loaded program takes what its weights and its largest batch do, and more: kernels, fragments.
SLACK = 1.2


@dataclass(frozen=True)
class Resident:
    """A version in memory; the first given are missed the least."""

    version: str
    bytes: int


def needed(parameter_bytes: int, warm_up_peak: int) -> int:
    """What a version takes, by its weights and by what its warm-up took at its most."""
    return int((parameter_bytes + warm_up_peak) * SLACK)


@dataclass(frozen=True)
class FreeMemory:
    """Of a device, in bytes, as a program was loaded that keeps no account of its own."""

    before: int
    opened: int  # its weights are there
    run: int  # and what it took for its first rows, which it keeps

    def needed(self, file_bytes: int, batches: int) -> int:
        """`batches`: how many times those rows are in the largest batch. Others may have taken or
        freed memory meanwhile: never less than the file."""
        weights = max(file_bytes, self.before - self.opened)
        return needed(weights, max(0, self.opened - self.run) * max(1, batches))


def to_evict(need: int, left: int, residents: Sequence[Resident]) -> tuple[str, ...]:
    """The versions that have to go before one that needs so much is loaded; all of them where even
    that is too little, since the load itself says best what is missing."""
    gone: list[str] = []
    for resident in residents:
        if left >= need:
            break
        left += resident.bytes
        gone.append(resident.version)
    return tuple(gone)
