"""A version on its way into memory, as those are told who ask before it serves."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from homeostat.records import VersionRef


@dataclass
class Coming:
    """What the record wants to serve, since that is known here."""

    ref: VersionRef
    step: str = "loaded"  # or "fetched"
    since: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        seconds = time.monotonic() - self.since
        return (
            f"version {self.ref.version} was promoted and is being {self.step}, for {seconds:.0f} s"
        )
