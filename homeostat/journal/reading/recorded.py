"""Which rows hold what is asked of them: a value that was never written down is no null."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from homeostat.errors import InputError
from homeostat.journal.encoding.schema import INPUT
from homeostat.journal.reading.rows import combined, flags, integers


@dataclass(frozen=True)
class Widths:
    """The tensors that a reading met."""

    fitted: bool = False  # one at least has as many elements as features were asked for
    others: frozenset[int] = frozenset()

    def __or__(self, more: Widths) -> Widths:
        return Widths(self.fitted or more.fitted, self.others | more.others)

    def require(self, features: Sequence[str]) -> None:
        """InputError where no tensor has as many elements as features were asked for."""
        if self.others and not self.fitted:
            raise InputError(
                f"the log's rows have {sorted(self.others)} elements, {len(features)} features "
                "were asked for: name every element of the tensor, in its order"
            )


def hidden(found: Any, wanted: Collection[str]) -> NDArray[np.bool_]:
    """Rows of which one of these features was left out, redacted or hashed when they were logged.
    A row says so itself (`recorded`); those from before it did are taken at their word."""
    column = combined(found["recorded"])
    if not wanted or column.null_count == len(column):
        return np.zeros(found.num_rows, dtype=bool)
    texts = column.unique().drop_null()
    hiding = [_hides(text, frozenset(wanted)) for text in texts.to_pylist()]
    return flags(pc.is_in(column, value_set=texts.filter(pa.array(hiding, pa.bool_()))))


def other_width(found: Any, features: Sequence[str]) -> NDArray[np.bool_]:
    """Rows of a tensor with more or fewer elements than features were asked for."""
    if not features or INPUT not in found.column_names:
        return np.zeros(found.num_rows, dtype=bool)
    lengths = _lengths(found)
    others: NDArray[np.bool_] = (lengths >= 0) & (lengths != len(features))
    return others


def widths(found: Any, features: Sequence[str]) -> Widths:
    if not features or INPUT not in found.column_names:
        return Widths()
    there = set(np.unique(_lengths(found)).tolist()) - {-1}
    return Widths(len(features) in there, frozenset(there - {len(features)}))


def _lengths(found: Any) -> NDArray[np.int64]:
    return integers(pc.list_value_length(combined(found[INPUT])).fill_null(-1))


def _hides(text: str, wanted: frozenset[str]) -> bool:
    said = json.loads(text)
    if said.get("inputs", "full") != "full":
        return True
    return not wanted.isdisjoint([*said.get("redact", ()), *said.get("hash", ())])
