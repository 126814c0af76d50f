"""What of a prediction is written down: which rows, and which of their values."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

KEY = "key"  # in `redact` and `hash`: the caller's own key of a row


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Settings journal.sample, inputs, redact and hash, with the key that belongs to `hash`."""

    sample: float = 1.0
    inputs: Literal["full", "descriptors", "none"] = "full"
    redact: frozenset[str] = frozenset()  # features, or "key"
    hash: frozenset[str] = frozenset()  # features, or "key"
    hash_key: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.sample <= 1:
            raise ValueError(f"sample is a share above 0 and up to 1, not {self.sample:g}")
        if self.hash and not self.hash_key:
            raise ValueError("hashed columns need a key: without one, values could be guessed")

    def text(self) -> str | None:
        """What stands beside each row, so that a reader can tell rows of other settings apart: JSON
        with `inputs`, `redact` and `hash`, each where it is not as it is by itself. None where the
        whole row is written down. The same settings have the same text."""
        said = {
            "inputs": None if self.inputs == "full" else self.inputs,
            "redact": sorted(self.redact),
            "hash": sorted(self.hash),
        }
        kept = {name: value for name, value in said.items() if value}
        return json.dumps(kept, separators=(",", ":")) if kept else None
