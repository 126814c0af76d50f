"""The shapes that MLflow's scoring protocol has for rows -> the server's own, {"rows": …}.

What is usual goes on as it came; only columns in another order, whole columns, and CSV are
written anew. The version's own reader then says what is wrong with a row.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from io import StringIO
from itertools import islice
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from homeostat.errors import InputError
from homeostat.records import FeatureKind, ModelSpec
from serving.requests.body import check_rows
from serving.requests.problem import Refused
from serving.requests.rows import meant, shown
from serving.requests.unreadable import Unreadable

SPLIT, RECORDS, INSTANCES, INPUTS = (
    "dataframe_split",
    "dataframe_records",
    "instances",
    "inputs",
)
AT_ONCE = 8192  # lines of numbers: NumPy lets no other thread run in between


class Split(msgspec.Struct):
    data: msgspec.Raw
    columns: list[Any] | None = None


class Document(msgspec.Struct):
    """One of the four, as MLflow demands."""

    dataframe_split: Split | None = None
    dataframe_records: msgspec.Raw = msgspec.Raw()
    instances: msgspec.Raw = msgspec.Raw()
    inputs: msgspec.Raw = msgspec.Raw()
    params: Any = None


_decode = msgspec.json.Decoder(Document).decode
_decode_rows = msgspec.json.Decoder(list[list[Any]]).decode
_decode_columns = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_values = msgspec.json.Decoder(list[Any]).decode
_encode = msgspec.json.Encoder().encode


def from_json(body: bytes, spec: ModelSpec, most_rows: float) -> bytes:
    """Raises InputError, TooLarge, Unreadable, Refused (400)."""
    try:
        document = _decode(body)
        given = {
            SPLIT: document.dataframe_split,
            RECORDS: document.dataframe_records,
            INSTANCES: document.instances,
            INPUTS: document.inputs,
        }
        there = [name for name, value in given.items() if value]
        if len(there) != 1:
            raise InputError(
                f"the body must have exactly one of {', '.join(given)}; "
                f"it has {', '.join(there) or 'none'}"
            )
        if document.params:
            raise InputError("params are not passed to the model by this server", field="params")
        if document.dataframe_split is not None:
            return _from_split(document.dataframe_split, spec, most_rows)
        if there == [INPUTS] and bytes(document.inputs).lstrip()[:1] == b"{":
            return _from_columns(_decode_columns(document.inputs), spec, most_rows)
        return _body(given[there[0]])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        why = error if body else "the body is empty"
        raise Unreadable(f"not a scoring request: {why}") from None


def from_csv(body: bytes, spec: ModelSpec, most_rows: float) -> bytes:
    """The first line names the columns; for a tensor it only has as many of them."""
    try:
        text = body.decode()
        header = next(csv.reader(StringIO(text)), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise Unreadable(f"not CSV in UTF-8: {error}", "text/csv") from None
    order = _order(header, spec)
    if all(feature.kind is FeatureKind.NUMBER for feature in spec.features):
        check_rows(sum(1 for _ in _given(text)), most_rows)
        return _encode({"rows": _numbers(text, len(header), order)})
    return _encode({"rows": _mixed(text, header, order, spec, most_rows)})


def _from_split(split: Split, spec: ModelSpec, most_rows: float) -> bytes:
    columns = split.columns
    if columns is None or spec.tensor_shape is not None or tuple(columns) == spec.names:
        return _body(split.data)
    order = _order(columns, spec)
    rows = _decode_rows(split.data)
    check_rows(len(rows), most_rows)
    for index, row in enumerate(rows):
        if len(row) != len(columns):
            raise InputError(
                f"row {index} has {len(row)} values for {len(columns)} columns", row=index
            )
    return _encode({"rows": [[row[place] for place in order] for row in rows]})


def _from_columns(columns: dict[str, msgspec.Raw], spec: ModelSpec, most_rows: float) -> bytes:
    if spec.tensor_shape is not None:
        if len(columns) != 1:
            raise InputError(f"the model takes one tensor, not {len(columns)}", field=INPUTS)
        return _body(next(iter(columns.values())))
    order = _order(list(columns), spec)
    values = [_decode_values(each) for each in columns.values()]
    check_rows(max(map(len, values), default=0), most_rows)
    if len({len(each) for each in values}) > 1:
        raise InputError("the columns are not all of one length", field=INPUTS)
    return _encode({"rows": list(zip(*[values[place] for place in order], strict=True))})


def _order(columns: Sequence[Any], spec: ModelSpec) -> list[int]:
    """Where each of the model's features stands; raises InputError."""
    if spec.tensor_shape is not None and len(columns) == len(spec.features):
        return list(range(len(columns)))
    places: dict[Any, int] = {}
    for place, name in enumerate(columns):
        if not isinstance(name, str) or name in places or name not in spec.names:
            raise InputError(
                f"the column {shown(name)} is there twice or is none of the model's"
                f"{meant(name, spec.names) if isinstance(name, str) else ''}",
                field="columns",
            )
        places[name] = place
    for name in spec.names:
        if name not in places:
            raise InputError(f'the column "{name}" is missing', field=name)
    return [places[name] for name in spec.names]


def _numbers(text: str, width: int, order: Sequence[int]) -> list[list[float]]:
    given = _given(text)
    parts: list[NDArray[Any]] = [np.empty((0, width))]
    while some := list(islice(given, AT_ONCE)):
        try:
            part = np.loadtxt(
                some, np.float64, comments=None, delimiter=",", ndmin=2, quotechar='"'
            )
        except ValueError as error:
            before = (len(parts) - 1) * AT_ONCE
            where = f"from row {before} on, " if before else ""
            raise InputError(f"the CSV does not hold numbers alone: {where}{error}") from None
        if part.shape[1] != width:
            raise InputError(f"the lines have {part.shape[1]} values for {width} columns")
        parts.append(part)
    found = np.concatenate(parts)
    if not found.size:
        raise InputError('"rows" is empty: there is no line after the header', field="rows")
    rows: list[list[float]] = found[:, list(order)].tolist()
    return rows


def _mixed(
    text: str, header: Sequence[str], order: Sequence[int], spec: ModelSpec, most_rows: float
) -> list[list[Any]]:
    numbers = [feature.kind is FeatureKind.NUMBER for feature in spec.features]
    rows = []
    try:
        check_rows(sum(1 for _ in _given_mixed(text)), most_rows)
        lines = list(_given_mixed(text))
    except csv.Error as error:
        raise Refused(f"not CSV: {error}", status=400) from None
    for index, line in enumerate(lines):
        if len(line) != len(header):
            raise InputError(
                f"row {index} has {len(line)} values for {len(header)} columns", row=index
            )
        rows.append(
            [
                _number(line[place], index, header[place]) if number else line[place]
                for place, number in zip(order, numbers, strict=True)
            ]
        )
    return rows


def _given(text: str) -> Iterator[str]:
    """The lines of numbers, after the header."""
    lines = StringIO(text)
    next(lines)
    return (line for line in lines if line.strip("\r\n"))


def _given_mixed(text: str) -> Iterator[list[str]]:
    """The same, where a line of the table may be several of the text; raises csv.Error."""
    return islice((line for line in csv.reader(StringIO(text)) if line), 1, None)


def _number(text: str, row: int, name: str) -> float | int:
    try:
        return int(text) if text.isdigit() and text.isascii() and len(text) < 19 else float(text)
    except ValueError:
        raise InputError(
            f'row {row}: "{name}" must be a number, not {shown(text)}', row=row, field=name
        ) from None


def _body(rows: Any) -> bytes:
    return b'{"rows":%b}' % bytes(rows)
