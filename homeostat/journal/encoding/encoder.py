"""Rows of the server -> the message that is written to the spool."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from homeostat.errors import InputError
from homeostat.journal.encoding import arrays, constants, parts, reduction
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.encoding.message import Encoded, Layout, Part
from homeostat.journal.encoding.recording import Recording
from homeostat.journal.encoding.schema import INPUT, column_of, prediction_fields
from homeostat.journal.encoding.usual import Usual, is_usual
from homeostat.records import Task

MOST_LAYOUTS = 256
_GIVEN = ("keys", "predictions", "probabilities", "embedding", "matrix")
TEXT, NUMBER = "text", "number"
_KINDS = {TEXT: pa.string(), NUMBER: pa.float64()}
Names = tuple[str, ...]


class PredictionEncoder:
    """What is the same in all rows of a version stands once, in the schema, and what a batch has
    not got is no column. Both come back when the rows are stored."""

    def __init__(self, task: Task, recording: Recording) -> None:
        self._classes = task is Task.CLASSIFICATION
        self._recording = recording
        self._veils = bool(recording.redact or recording.hash)
        self._types = {field.name: field.type for field in prediction_fields(task)}
        self._layouts: dict[tuple[Any, ...], Layout] = {}
        self._plain = not self._veils and recording.inputs == "full"
        self._usual: dict[tuple[str, str, bool], Usual] = {}

    def encode(self, batch: PredictionBatch) -> Encoded | None:
        """What is logged of a batch; None where the sample has none of its rows. Raises
        InputError where the batch's columns do not fit together."""
        rows = len(batch.ids)
        try:
            if self._recording.sample < 1:
                _check(batch, rows)
                batch = reduction.sampled(batch, self._recording.sample)
                rows = len(batch.ids)
                if not rows:
                    return None
            return self._usually(batch) if self._plain else self._any(batch)
        except (ValueError, TypeError, KeyError, IndexError) as problem:
            raise InputError(f"a batch of {rows} rows cannot be logged: {problem}") from problem

    def _usually(self, batch: PredictionBatch) -> Encoded:
        key = (batch.version, batch.role, batch.cached)
        usual = self._usual.get(key)
        found = None if usual is None else usual.message(batch)
        if found is not None:
            return found
        encoded = self._any(batch)
        if is_usual(batch):
            if usual is None or not usual.is_like(batch, encoded.layout):
                if len(self._usual) >= MOST_LAYOUTS:
                    self._usual.clear()
                usual = self._usual[key] = Usual(batch, encoded.layout, classes=self._classes)
            usual.learn(batch, encoded)
        return encoded

    def _any(self, batch: PredictionBatch) -> Encoded:
        rows = len(batch.ids)
        _check(batch, rows)
        if self._veils:
            batch = reduction.veiled(batch, self._recording)
        vectors = self._vectors(batch)
        names, kinds, inputs = self._inputs(batch)
        layout = self._layout(batch, tuple([name for name, _ in vectors]), names, kinds)
        found = self._common(batch, rows) + [parts.vectors(each, rows) for _, each in vectors]
        return Encoded(layout, layout.message(rows, found + inputs), rows)

    def _common(self, batch: PredictionBatch, rows: int) -> list[Part]:
        said: Any = batch.predictions
        found = [
            parts.texts(batch.ids),
            parts.integers(batch.time_us, rows),
            parts.integers(batch.latency_us, rows),
            parts.texts(said) if self._classes else parts.float64s(said),
        ]
        if batch.keys is not None:
            found.append(parts.optional_texts(batch.keys))
        return found

    def _vectors(self, batch: PredictionBatch) -> list[tuple[str, NDArray[Any]]]:
        found = []
        if batch.probabilities is not None:
            found.append(("probabilities", batch.probabilities))
        if batch.embedding is not None:
            found.append(("embedding", batch.embedding))
        if self._recording.inputs == "full" and batch.tensor and batch.matrix is not None:
            found.append((INPUT, batch.matrix))
        if self._recording.inputs == "descriptors":
            found.append(("descriptors", reduction.described(batch)))
        return found

    def _layout(self, batch: PredictionBatch, lists: Names, names: Names, kinds: Names) -> Layout:
        keys = batch.keys is not None
        key = (batch.version, batch.role, batch.cached, keys, lists, names, kinds)
        layout = self._layouts.get(key)
        if layout is None:
            if len(self._layouts) >= MOST_LAYOUTS:
                self._layouts.clear()
            layout = self._layouts[key] = Layout(self._schema(batch, lists, names, kinds))
        return layout

    def _schema(self, batch: PredictionBatch, lists: Names, names: Names, kinds: Names) -> Any:
        """In the order in which `encode` puts the parts."""
        common = ["prediction_id", "time", "latency_us", "prediction"]
        common += ["key"] if batch.keys is not None else []
        types = {name: self._types[name] for name in common}
        types |= dict.fromkeys(lists, arrays.FLOATS)
        types |= dict(zip(names, map(_KINDS.get, kinds), strict=True))
        fields = [pa.field(name, type_) for name, type_ in types.items()]
        same = constants.Constants(
            version=batch.version,
            role=batch.role,
            cached=batch.cached,
            weight=1.0 / self._recording.sample,
            recorded=self._recording.text(),
        )
        return pa.schema(fields, metadata=constants.metadata(same))

    def _inputs(self, batch: PredictionBatch) -> tuple[Names, Names, list[Part]]:
        """Names and kinds of the named columns, and the columns."""
        if self._recording.inputs != "full":
            return (), (), []
        if batch.matrix is not None and batch.tensor:
            return (), (), []
        names = _names(batch.features)
        if batch.matrix is not None:
            return names, (NUMBER,) * len(names), [parts.columns(batch.matrix)]
        given = batch.columns or {}
        found: dict[str, str] = {}
        inputs: list[Part] = []
        for feature, name in zip(batch.features, names, strict=True):
            kind = _kind(batch, feature, given[feature]) if feature in given else None
            if kind is not None:
                found[name] = kind
                write = parts.optional_texts if kind == TEXT else parts.optional_numbers
                inputs.append(write(given[feature]))
        return tuple(found), tuple(found.values()), inputs


def _kind(batch: PredictionBatch, feature: str, values: Sequence[Any]) -> str | None:
    """None where nobody said, and there are only nulls."""
    if batch.categories is not None:
        return TEXT if feature in batch.categories else NUMBER
    first = next((value for value in values if value is not None), None)
    if first is None:
        return None
    return TEXT if isinstance(first, str) else NUMBER


@lru_cache(maxsize=64)
def _names(features: tuple[str, ...]) -> Names:
    return tuple(map(column_of, features))


def _check(batch: PredictionBatch, rows: int) -> None:
    """Arrow would not notice a column that is too short."""
    for name in _GIVEN:
        values = getattr(batch, name)
        if values is not None and len(values) != rows:
            raise ValueError(f"{name} has {len(values)} rows")
    for name, values in (batch.columns or {}).items():
        if len(values) != rows:
            raise ValueError(f"{name} has {len(values)} rows")
    matrix = batch.matrix
    if matrix is not None and not batch.tensor and matrix.shape[1:] != (len(batch.features),):
        raise ValueError(f"{len(batch.features)} features in a matrix of {matrix.shape}")
