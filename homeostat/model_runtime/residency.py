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
