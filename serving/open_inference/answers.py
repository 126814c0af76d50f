"""A version's answers as tensors, whatever carries them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from homeostat.errors import InputError
from homeostat.records import ModelSpec
from serving.open_inference.datatypes import BYTES, packed_ids, with_length
from serving.open_inference.signature import (
    EMBEDDING,
    PREDICTION,
    PREDICTION_ID,
    PROBABILITIES,
    outputs_of,
)
from serving.requests.forms import Piece
from serving.requests.rows import shown

# A parameter of answers by another version than the one it should be, which fails.
FALLBACK = "fallback"


class Said(NamedTuple):
    """One output of one request."""

    name: str
    datatype: str
    shape: list[int]
    values: Sequence[Any] | NDArray[Any]  # strings where the datatype is BYTES


class AnswerWriter:
    """Writes the outputs of one version."""

    def __init__(self, spec: ModelSpec) -> None:
        described = outputs_of(spec)
        self._datatypes = {each.name: each.datatype for each in described}
        # an embedding is larger than all else; who wants it asks for it
        self.usual = [each.name for each in described if each.name != EMBEDDING]
        self._classes = {name: with_length(name) for name in spec.classes}

    def check(self, name: str, parameters: Collection[str]) -> None:
        """Whether this output can be asked for, with such parameters; raises InputError."""
        if name not in self._datatypes:
            raise InputError(
                f"the model has no output {shown(name)}; its outputs: {', '.join(self._datatypes)}",
                field=name,
            )
        if "classification" in parameters:
            raise InputError(
                "the classification extension is not served; ask for prediction and probabilities",
                field=name,
            )

    def check_all(self, wanted: Iterable[tuple[str, Collection[str]]]) -> None:
        """The same for all of one request, each of them once."""
        names: set[str] = set()
        for name, parameters in wanted:
            self.check(name, parameters)
            if name in names:
                raise InputError(f"the output {shown(name)} is asked for twice", field=name)
            names.add(name)

    def said(self, name: str, piece: Piece) -> Said | None:
        """None: this model gives no such thing, though its signature allows it."""
        count = len(piece.ids)
        if name == PREDICTION_ID:
            return Said(name, BYTES, [count], piece.ids)
        values = {
            PREDICTION: piece.predictions,
            PROBABILITIES: piece.probabilities,
            EMBEDDING: piece.embedding,
        }[name]
        if values is None:
            return None
        if isinstance(values, np.ndarray):
            return Said(name, "FP32", list(values.shape), values)
        return Said(name, self._datatypes[name], [count], values)

    def packed(self, said: Said) -> bytes:
        """The values as the protocol's bytes."""
        name, _, _, values = said
        if isinstance(values, np.ndarray):
            return np.ascontiguousarray(values, np.float32).tobytes()
        if name == PREDICTION_ID:
            return packed_ids(values)
        if said.datatype != BYTES:
            return np.array(values, np.float64).tobytes()
        known = self._classes
        try:
            return b"".join(map(known.__getitem__, values))
        except KeyError:  # a class that the version did not name
            return b"".join([with_length(each) for each in values])
