"""Rows and labels -> Arrow record batches, as they lie in the spool and in the tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from homeostat.errors import InputError
from homeostat.journal import arrays
from homeostat.journal.batch import PredictionBatch
from homeostat.records import Label, Task

INPUT = "input"  # a tensor's elements; a named feature lies in input_<name>
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def column_of(feature: str) -> str:
    """The column of the table that holds a named feature."""
    return f"{INPUT}_{feature}"


def microseconds(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


def prediction_fields(task: Task) -> list[Any]:
    """What every row has, whatever its inputs are."""
    said = pa.string() if task is Task.CLASSIFICATION else pa.float64()
    return [
        pa.field("prediction_id", pa.string()),
        pa.field("time", arrays.TIME),
        pa.field("version", pa.string()),
        pa.field("role", pa.string()),
        pa.field("key", pa.string()),
        pa.field("prediction", said),
        pa.field("probabilities", arrays.FLOATS),
        pa.field("embedding", arrays.FLOATS),
        pa.field("latency_us", pa.int64()),
        pa.field("cached", pa.bool_()),
        pa.field("weight", pa.float64()),  # how many rows it stands for
        pa.field("descriptors", arrays.FLOATS),  # of its inputs, where these are not logged
    ]


LABEL_SCHEMA = pa.schema(
    [
        pa.field("prediction_id", pa.string()),
        pa.field("name", pa.string()),
        pa.field("value", pa.string()),
        pa.field("source", pa.string()),
        pa.field("time", arrays.TIME),
        pa.field("received", arrays.TIME),
        pa.field("ordinal", pa.int64()),  # the order among labels received in one moment
    ]
)


class PredictionEncoder:
    """Remembers the kinds of the columns seen, so that one all-null batch changes no schema."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._fields = prediction_fields(task)
        self._schemas: dict[tuple[str, ...], Any] = {}
        self._text: dict[str, bool] = {}

    def encode(self, batch: PredictionBatch) -> Any:
        """A record batch; raises InputError where the batch's columns do not fit together."""
        rows = len(batch.ids)
        try:
            names, inputs = self._inputs(batch, rows)
            said: Any
            if self._task is Task.CLASSIFICATION:
                said = arrays.texts(batch.predictions)  # type: ignore[arg-type]
            else:
                said = arrays.numbers(np.array(batch.predictions, np.float64), pa.float64())
            common = [
                arrays.texts(batch.ids),
                arrays.repeated(batch.time_us, rows, "int64", arrays.TIME),
                arrays.text(batch.version, rows),
                arrays.text(batch.role, rows),
                _keys(batch, rows),
                said,
                arrays.floats(batch.probabilities, rows),
                arrays.floats(batch.embedding, rows),
                arrays.repeated(batch.latency_us, rows, "int64", pa.int64()),
                arrays.booleans(batch.cached, rows),
                arrays.repeated(1.0, rows, "float64", pa.float64()),
                arrays.floats(None, rows),
            ]
            schema = self._schema(names, inputs)
            return pa.RecordBatch.from_arrays(common + inputs, schema=schema)
        except (ValueError, TypeError) as problem:  # pa.ArrowInvalid is a ValueError
            raise InputError(f"a batch of {rows} rows cannot be logged: {problem}") from problem

    def _schema(self, names: Sequence[str], inputs: list[Any]) -> Any:
        # a type's own hash is slow; the names and which of them hold text say the same
        key = (*names, *(name for name in names if self._text.get(name)))
        schema = self._schemas.get(key)
        if schema is None:
            fields = [pa.field(n, a.type) for n, a in zip(names, inputs, strict=True)]
            schema = self._schemas[key] = pa.schema(self._fields + fields)
        return schema

    def _inputs(self, batch: PredictionBatch, rows: int) -> tuple[Sequence[str], list[Any]]:
        if batch.matrix is not None and batch.tensor:
            return (INPUT,), [arrays.floats(batch.matrix, rows)]
        names = [column_of(feature) for feature in batch.features]
        if batch.matrix is not None:
            self._text.update(dict.fromkeys(names, False))
            return names, arrays.float_columns(batch.matrix)
        columns = batch.columns or {}
        said = batch.categories is not None
        found: list[str] = []
        inputs: list[Any] = []
        for feature, name in zip(batch.features, names, strict=True):
            if batch.categories is not None:
                self._text[name] = feature in batch.categories
            array = self._column(name, columns[feature], said=said) if feature in columns else None
            if array is not None:
                found.append(name)
                inputs.append(array)
        return found, inputs

    def _column(self, name: str, values: Sequence[Any], *, said: bool) -> Any | None:
        """None while its kind is not known: nobody said, and nothing but nulls was ever seen."""
        if not said:
            first = next((value for value in values if value is not None), None)
            if first is not None:
                self._text[name] = isinstance(first, str)
            elif name not in self._text:
                return None
        if self._text[name]:
            return arrays.optional_texts(values)
        return arrays.optional_numbers(values)


def _keys(batch: PredictionBatch, rows: int) -> Any:
    return pa.nulls(rows, pa.string()) if batch.keys is None else arrays.optional_texts(batch.keys)


def encode_labels(labels: Sequence[Label], received_us: int) -> Any:
    """One record batch, in the order given; that order decides between labels of one time."""
    times = np.array([microseconds(label.time) for label in labels], dtype=np.int64)
    columns = [
        arrays.texts([label.prediction_id for label in labels]),
        arrays.texts([label.name for label in labels]),
        arrays.texts([label.value for label in labels]),
        arrays.texts([label.source for label in labels]),
        arrays.numbers(times, arrays.TIME),
        arrays.repeated(received_us, len(labels), "int64", arrays.TIME),
        arrays.numbers(np.arange(len(labels), dtype=np.int64), pa.int64()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=LABEL_SCHEMA)
