"""What the parts of a request's way through its batch expect of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from homeostat.errors import HomeostatError
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.model_runtime.contract import Outputs
from serving.requests.forms import Written
from serving.requests.parsing import Rows

Result = Written | HomeostatError


class Answers(Protocol):
    """Answering.answer."""

    def __call__(
        self, requests: Sequence[Rows], wait: float = 0.0, *, logged: bool = True
    ) -> list[Result]: ...


class Journalling(Protocol):
    """The part of JournalWriter that the hot path needs."""

    def append(self, batch: PredictionBatch, wait: float = 0.0) -> None: ...


class Said(Protocol):
    """What a model said to requests before, so that it need not be asked again."""

    def known(self, requests: Sequence[Rows]) -> Outputs | None:
        """Of all of them, one after the other, or None."""
        ...

    def learn(self, requests: Sequence[Rows], outputs: Outputs) -> None: ...
