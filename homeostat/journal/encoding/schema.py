"""The columns of predictions and labels, as they lie in the spool and in the tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from homeostat.journal.encoding import arrays
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
        pa.field("recorded", pa.string()),  # what of its inputs and key; null: all of it
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
