"""What a check can see of a row's inputs, by what the log holds of them.

All features; or six numbers that describe them; or nothing. What is never logged is not compared,
and neither is what is logged as a hash: equal hashes say nothing of how far values moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from homeostat import columns
from homeostat.journal.encoding.descriptors import DESCRIPTORS, describe
from homeostat.journal.reader import Journal
from homeostat.records import Feature, FeatureKind, ModelSpec, Window
from homeostat.settings_of_serving import JournalSettings
from monitor import frames

DESCRIBED = tuple(Feature(name=f"inputs_{name}") for name in DESCRIPTORS)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The rows of a window that can be compared, and how many were logged under other settings."""

    rows: pd.DataFrame
    left_out: int

    @property
    def note(self) -> str:
        if not self.left_out:
            return ""
        return f"left out: {self.left_out:,} rows that were logged under other settings"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    spec: ModelSpec
    kept: str  # journal.inputs
    hidden: frozenset[str]  # redacted or hashed
    redacted: frozenset[str]

    @property
    def features(self) -> tuple[Feature, ...]:
        """The columns that are compared."""
        if self.kept == "full":
            return tuple(each for each in self.spec.features if each.name not in self.hidden)
        return DESCRIBED if self.kept == "descriptors" else ()

    @property
    def note(self) -> str:
        """What is not compared, and why; empty where all is."""
        if self.kept == "none":
            return 'the log holds no inputs (journal.inputs = "none")'
        names = [name for name in self.spec.names if name in self.hidden]
        if self.kept == "descriptors" or not names:
            return ""
        return f"not compared: {', '.join(names)} (journal.redact or journal.hash)"

    def seen(self, journal: Journal, window: Window) -> Seen:
        also = (columns.KEY,) if self.kept == "none" else (columns.KEY, columns.DESCRIPTORS)
        left_out: list[int] = []
        found: pd.DataFrame = journal.window(
            window.start,
            window.end,
            self._read(),
            versions=window.versions,
            also=also,
            as_recorded=self.hidden,  # in a tensor they keep their place
            left_out=left_out.append,
        ).to_pandas()
        if self.kept == "none":
            return Seen(rows=found, left_out=0)
        described: pd.Series = found.pop(columns.DESCRIPTORS)
        mine = described.notna() == (self.kept == "descriptors")
        others = sum(left_out) + int((~mine).sum())
        found = found[mine].reset_index(drop=True)
        if self.kept == "descriptors":
            found = pd.concat([_spread(described[mine].tolist()), found], axis=1)
        return Seen(rows=found, left_out=others)

    def of(self, reference: pd.DataFrame) -> pd.DataFrame:
        """A reference in the same columns; one that lacks them stays as it is."""
        there = set(reference.columns)
        if self.kept != "descriptors" or {each.name for each in DESCRIBED} <= there:
            return reference
        if not set(self._numbers() + self._texts()) <= there:
            return reference
        described = _spread(list(self._described(reference)))
        return pd.concat([described, reference.reset_index(drop=True)], axis=1)

    def fit(self, reference: pd.DataFrame) -> bool:
        """Whether it can be compared with: it may have been written under other settings."""
        return {each.name for each in self.features} <= set(reference.columns)

    def _read(self) -> tuple[str, ...]:
        if self.kept != "full":
            return ()
        if self.spec.tensor_shape is not None:
            return self.spec.names  # a tensor's elements are told apart by their order
        return tuple(each.name for each in self.features)

    def _described(self, reference: pd.DataFrame) -> NDArray[np.float32]:
        """By the function that described the rows of the log, of what it was given."""
        numbers, texts = self._numbers(), self._texts()
        typed = frames.typed(reference, self._features(numbers + texts), "the reference")
        matrix = np.array(typed[list(numbers)], dtype=np.float64)
        if self.spec.tensor_shape is not None:
            matrix[:, [name in self.hidden for name in numbers]] = np.nan
        missing = typed[list(texts)].isna().to_numpy().sum(axis=1)
        return describe(matrix, missing, len(texts))

    def _numbers(self) -> tuple[str, ...]:
        if self.spec.tensor_shape is not None:
            return self.spec.names
        return tuple(
            each.name
            for each in self.spec.features
            if each.kind is FeatureKind.NUMBER and each.name not in self.hidden
        )

    def _texts(self) -> tuple[str, ...]:
        """A hash is text, whatever was hashed."""
        seen = [name for name in self.spec.names if name not in self.redacted]
        return tuple(name for name in seen if name not in self._numbers())

    def _features(self, names: Sequence[str]) -> list[Feature]:
        by_name = {each.name: each for each in self.spec.features}
        return [by_name[name] for name in names]


def inputs_of(spec: ModelSpec, settings: JournalSettings) -> Inputs:
    return Inputs(
        spec=spec,
        kept=settings.inputs,
        hidden=frozenset((*settings.redact, *settings.hash)),
        redacted=frozenset(settings.redact),
    )


def _spread(described: Sequence[Sequence[float]]) -> pd.DataFrame:
    matrix = np.array(described, dtype=np.float64).reshape(len(described), len(DESCRIBED))
    return pd.DataFrame(matrix, columns=[each.name for each in DESCRIBED])
