"""A request's body -> rows the model takes, or an error that names the row and the field.

Most bodies are read by a decoder that knows the version's types. What none of them takes is read
again slowly, to find out what is wrong with it, or to take what is merely unusual.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from homeostat.errors import InputError
from homeostat.feature_values import BOOLEANS
from homeostat.records import ModelSpec
from serving.requests.body import check_rows, too_many_rows
from serving.requests.finite import is_finite
from serving.requests.forms import Form
from serving.requests.problem import Refused
from serving.requests.rows import RowCheck, shown
from serving.requests.unreadable import Unreadable

MAX_ID = MAX_KEY = 128
MAX_OBJECT_FIELDS = 512  # beyond, a decoder of our own for objects costs more than it saves

Matrix = NDArray[Any]


class Rows(msgspec.Struct):
    """The rows of one request, checked; one of matrix and columns is there, as in Batch."""

    count: int
    ids: list[str] | None = None
    matrix: Matrix | None = None
    columns: Mapping[str, Sequence[Any]] | None = None
    keys: list[str | None] | None = None
    form: Form | None = None  # how the answer is written; None: in the server's own JSON
    role: str = "champion"  # of the version that answers, see routing.Role


class _Unfit(Exception):
    """This decoder's rows are not what the model takes; another look is needed."""


class RowReader:
    """Reads the requests for one version."""

    def __init__(self, spec: ModelSpec, most_rows: float = math.inf) -> None:
        """More than `most_rows` are not looked at one by one."""
        self.most_rows = most_rows
        self._check = RowCheck(spec)
        self._names = spec.names
        self._shape = spec.tensor_shape
        self._whole = [(i, each) for i, each in enumerate(self._check.ranges) if each is not None]
        self._integers = [i for i, _ in self._whole]
        self._low = np.array([taken.low for _, taken in self._whole], np.float64)
        self._end = np.array([taken.end for _, taken in self._whole], np.float64)
        self._booleans = [
            name for name, is_ in zip(spec.names, self._check.boolean, strict=True) if is_
        ]
        self._ways = self._make_ways()

    def read(self, body: bytes) -> Rows:
        """Raises InputError for wrong content, TooLarge for too many rows, Unreadable for what is
        not JSON."""
        for decode, build in self._ways:
            try:
                document = decode(body)
                given, ids, keys = document.rows, document.ids, document.keys
                if len(given) > self.most_rows:
                    raise too_many_rows(len(given), self.most_rows)
                if ids is not None:
                    check_ids(ids, len(given))
                if keys is not None:
                    check_keys(keys, len(given))
                rows = build(given)
            except (msgspec.MsgspecError, _Unfit, ValueError, RecursionError, OverflowError):
                continue
            rows.ids, rows.keys = ids, keys
            return rows
        return self._read_slowly(body)

    def _make_ways(self) -> list[tuple[Callable[[bytes], Any], Callable[[Any], Rows]]]:
        numeric = self._check.numeric
        # a boolean may be a number too: 0 or 1
        types = [
            float if number else bool | float | str if boolean else str
            for number, boolean in zip(self._check.number, self._check.boolean, strict=True)
        ]
        ways: list[tuple[Callable[[bytes], Any], Callable[[Any], Rows]]] = []
        if numeric:
            ways.append((_decoder(list[float]), self._from_lists))
        else:
            ways.append((_decoder(tuple[tuple(types)]), self._from_mixed))  # type: ignore[misc]
        if self._shape is not None and len(self._shape) > 1:
            nested: Any = float
            for _ in self._shape:
                nested = list[nested]
            ways.append((_decoder(nested), self._from_nested))
        if len(self._names) <= MAX_OBJECT_FIELDS:
            keys = [f"f{i}" for i in range(len(types))]
            row = msgspec.defstruct(
                "Row",
                list(zip(keys, types, strict=True)),
                rename=dict(zip(keys, self._names, strict=True)),
                forbid_unknown_fields=True,
            )
            build = self._from_lists if numeric else self._from_mixed
            as_tuple = msgspec.structs.astuple
            ways.append((_decoder(row), lambda rows: build([as_tuple(r) for r in rows])))
        return ways

    def _from_lists(self, rows: Sequence[Sequence[float]]) -> Rows:
        matrix = np.array(rows, dtype=self._check.dtype)
        if matrix.ndim != 2:
            raise _Unfit
        return self._checked(matrix)

    def _from_nested(self, rows: Any) -> Rows:
        matrix = np.array(rows, dtype=self._check.dtype)
        if matrix.shape[1:] != self._shape:
            raise _Unfit
        return self._checked(matrix.reshape(len(matrix), -1))

    def _checked(self, matrix: Matrix) -> Rows:
        count, width = matrix.shape
        # JSON has no NaN, but 1e39 is infinite as a float32
        if not count or width != len(self._names) or not is_finite(matrix):
            raise _Unfit
        if self._integers:
            part = matrix[:, self._integers]
            if (part != np.rint(part)).any() or not self._within(part):
                raise _Unfit
        return Rows(count, None, matrix)

    def _from_mixed(self, rows: Sequence[Sequence[Any]]) -> Rows:
        columns: dict[str, Sequence[Any]] = dict(
            zip(self._names, zip(*rows, strict=True), strict=True)
        )
        for i, (low, end) in self._whole:
            values = columns[self._names[i]]
            if not all(value.is_integer() and low <= value < end for value in values):
                raise _Unfit
            columns[self._names[i]] = [int(value) for value in values]
        for name in self._booleans:
            texts = [BOOLEANS.get(value) for value in columns[name]]
            if None in texts:
                raise _Unfit
            columns[name] = texts
        return Rows(len(rows), None, None, columns)

    def _within(self, part: Matrix) -> bool:
        return not ((part < self._low).any() or (part >= self._end).any())

    def _read_slowly(self, body: bytes) -> Rows:
        document, malformed = parse(body, '{"rows": [[…], …]}')
        rows, ids, keys = _members(document)
        check_rows(len(rows), self.most_rows)
        checked = [self._check.row(index, row) for index, row in enumerate(rows)]
        if ids is not None:
            check_ids(ids, len(rows))
        if keys is not None:
            check_keys(keys, len(rows))
        if malformed:
            raise malformed
        if self._check.numeric:
            matrix = np.array(checked, dtype=self._check.dtype)
            return Rows(len(rows), ids, matrix, None, keys)
        columns = dict(zip(self._names, zip(*checked, strict=True), strict=True))
        return Rows(len(rows), ids, None, columns, keys)


def parse(body: bytes, example: str) -> tuple[Any, Unreadable | None]:
    """The document, with the complaint where only a lenient reader takes it (NaN, Infinity, 1e999).

    The lenient reading serves to name the row and field of such a value; the complaint stands.
    `example`: of what is to be sent.
    """
    if not body:
        raise Refused(f"the body is empty; send {example}", status=400)
    try:
        return msgspec.json.decode(body), None
    except (ValueError, RecursionError) as error:
        malformed = Unreadable(f"the body is not JSON: {error}")
    try:
        return json.loads(body), malformed
    except (ValueError, RecursionError):
        raise malformed from None


def check_ids(ids: Sequence[Any], rows: int) -> None:
    if len(ids) != rows:
        raise InputError(f"{len(ids)} ids for {rows} rows", field="ids")
    for index, value in enumerate(ids):
        if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
            raise InputError(
                f"row {index}: an id is a string of 1 to {MAX_ID} characters, not {shown(value)}",
                row=index,
                field="ids",
            )
    if len(set(ids)) != rows:
        seen: set[str] = set()
        for index, value in enumerate(ids):
            if value in seen:
                raise InputError(
                    f"row {index}: the id {shown(value)} is there twice", row=index, field="ids"
                )
            seen.add(value)


def check_keys(keys: Sequence[Any], rows: int) -> None:
    """Unlike ids, many rows may have the same key, and any may have none."""
    if len(keys) != rows:
        raise InputError(f"{len(keys)} keys for {rows} rows", field="keys")
    for index, value in enumerate(keys):
        if value is not None and not (isinstance(value, str) and 0 < len(value) <= MAX_KEY):
            raise InputError(
                f"row {index}: a key is null or a string of 1 to {MAX_KEY} characters, "
                f"not {shown(value)}",
                row=index,
                field="keys",
            )


def _members(document: Any) -> tuple[list[Any], list[Any] | None, list[Any] | None]:
    if not isinstance(document, dict):
        raise InputError('the body must be an object such as {"rows": [[…], …]}')
    for key in document:
        if key not in ("rows", "ids", "keys"):
            raise InputError(
                f'unknown member {shown(key)}; there are "rows", "ids" and "keys"', field=key
            )
    rows, ids, keys = (document.get(name) for name in ("rows", "ids", "keys"))
    if not isinstance(rows, list):
        raise InputError('"rows" must be a list of rows', field="rows")
    if not rows:
        raise InputError('"rows" is empty', field="rows")
    if ids is not None and not isinstance(ids, list):
        raise InputError('"ids" must be a list of strings, one a row', field="ids")
    if keys is not None and not isinstance(keys, list):
        raise InputError('"keys" must be a list of strings or nulls, one a row', field="keys")
    return rows, ids, keys


def _decoder(row: Any) -> Callable[[bytes], Any]:
    body = msgspec.defstruct(
        "Body",
        [
            ("rows", list[row]),
            ("ids", list[str] | None, None),
            ("keys", list[str | None] | None, None),
        ],
        forbid_unknown_fields=True,
    )
    return msgspec.json.Decoder(body).decode
