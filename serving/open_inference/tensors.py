"""Tensors that came, by whatever way -> rows the model takes, or an error that names the input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from homeostat.errors import InputError
from homeostat.feature_values import BOOLEANS, Range, is_boolean
from homeostat.records import ModelSpec
from serving.open_inference.datatypes import BYTES, NUMBERS
from serving.open_inference.signature import (
    KEY,
    PREDICTION_ID,
    TENSOR,
    Described,
    inputs_of,
    optional_inputs_of,
)
from serving.requests.body import check_rows
from serving.requests.finite import is_finite
from serving.requests.parsing import Rows, check_ids, check_keys
from serving.requests.rows import RowCheck, shown

MAX_DIMENSIONS = 32

Values = NDArray[Any] | list[str]


class Tensor(NamedTuple):
    """Checked for itself: as many values as the shape says, of the type it names."""

    name: str
    datatype: str
    shape: Sequence[int]
    values: Values  # flat


class TensorReader:
    """Reads the tensors for one version."""

    def __init__(self, spec: ModelSpec) -> None:
        self._check = RowCheck(spec)
        self._inputs = {each.name: each for each in inputs_of(spec)}
        self._optional = optional_inputs_of(spec)
        self._tensor_range = next(iter(self._check.ranges), None)
        self._ranges = dict(zip(spec.names, self._check.ranges, strict=True))
        self._booleans = frozenset(each.name for each in spec.features if is_boolean(each))
        self._tensor_shape = spec.tensor_shape
        self._width = len(spec.features)

    def rows(self, tensors: Sequence[Tensor]) -> Rows:
        """Raises InputError."""
        if len(tensors) == 1 and self._tensor_shape is not None and tensors[0].name == TENSOR:
            return self._from_tensor(tensors[0])
        given = self._by_name(tensors)
        beside = {name: given.pop(name, None) for name in self._optional}
        ids, keys = beside.get(PREDICTION_ID), beside.get(KEY)
        for name in self._inputs:
            if name not in given:
                raise InputError(f'the input "{name}" is missing', field=name)
        if self._tensor_shape is None:
            rows = self._from_columns(given)
        else:
            rows = self._from_tensor(given[TENSOR])
        if ids is not None:
            rows.ids = self._texts(ids, rows.count)
            check_ids(rows.ids, rows.count)
        if keys is not None:
            # a string that is empty stands for none
            rows.keys = [each or None for each in self._texts(keys, rows.count)]
            check_keys(rows.keys, rows.count)
        return rows

    def told(self, error: InputError) -> InputError:
        """One that was found before the version was asked: with what it takes there."""
        described = self._inputs.get(error.field or "")
        if described is None:
            return error
        more = f"the model takes {described.datatype} there"
        return InputError(f"{error}; {more}", row=error.row, field=error.field)

    def _by_name(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        given: dict[str, Tensor] = {}
        for tensor in tensors:
            name = tensor.name
            if name in given:
                raise InputError(f"the input {shown(name)} is there twice", field=name)
            if name not in self._inputs and name not in self._optional:
                known = ", ".join(list(self._inputs)[:20])
                raise InputError(
                    f"the model has no input {shown(name)}; its inputs: {known}", field=name
                )
            given[name] = tensor
        return given

    def _from_tensor(self, tensor: Tensor) -> Rows:
        described, shape = self._inputs[TENSOR], tensor.shape
        matrix = _numbers(tensor, described, self._check.dtype)
        rest = tuple(shape[1:])
        if not shape or (rest != self._tensor_shape and rest != (self._width,)):
            wanted = ["rows", *map(str, described.shape[1:])]
            raise InputError(
                f'"{TENSOR}" is of the shape {_list(shape)}, not [{", ".join(wanted)}]',
                field=TENSOR,
            )
        count = _counted(tensor)
        matrix = matrix.reshape(count, self._width)
        _check_values(matrix, TENSOR, self._tensor_range)
        return Rows(count, None, matrix)

    def _from_columns(self, given: Mapping[str, Tensor]) -> Rows:
        count = _counted(next(iter(given.values())))
        columns: dict[str, Any] = {}
        for name, described in self._inputs.items():
            tensor = given[name]
            if list(tensor.shape) not in ([count], [count, 1]):
                raise InputError(
                    f'"{name}" is of the shape {_list(tensor.shape)}, not [{count}]', field=name
                )
            if name in self._booleans:
                columns[name] = self._truths(tensor, described, count)
                continue
            if described.datatype == BYTES:
                columns[name] = self._texts(tensor, count)
                continue
            values = _numbers(tensor, described, NUMBERS[described.datatype])
            if self._check.numeric:
                values = values.astype(self._check.dtype)
            _check_values(values.reshape(count, 1), name, self._ranges[name])
            columns[name] = values
        if self._check.numeric:
            return Rows(count, None, np.column_stack(list(columns.values())))
        listed = {
            name: values if isinstance(values, list) else values.tolist()
            for name, values in columns.items()
        }
        return Rows(count, None, None, listed)

    def _truths(self, tensor: Tensor, described: Described, count: int) -> list[str]:
        """As booleans, or in words."""
        if tensor.datatype != BYTES:
            return ["true" if value else "false" for value in _numbers(tensor, described, np.bool_)]
        texts = []
        for row, value in enumerate(self._texts(tensor, count)):
            if value not in BOOLEANS:
                message = f'row {row}: "{tensor.name}" must be true or false, not {shown(value)}'
                raise InputError(message, row=row, field=tensor.name)
            texts.append(BOOLEANS[value])
        return texts

    def _texts(self, tensor: Tensor, count: int) -> list[str]:
        if not isinstance(tensor.values, list):
            raise InputError(
                f'"{tensor.name}" is {BYTES}, not {tensor.datatype}', field=tensor.name
            )
        if list(tensor.shape) not in ([count], [count, 1]):
            raise InputError(
                f'"{tensor.name}" is of the shape {_list(tensor.shape)}, not [{count}]',
                field=tensor.name,
            )
        return tensor.values


def _numbers(tensor: Tensor, described: Described, wanted: Any) -> NDArray[Any]:
    """A type that fits into the model's own without loss will do."""
    values = tensor.values
    if tensor.datatype != described.datatype:
        known = NUMBERS.get(tensor.datatype)
        if known is None or not np.can_cast(known, NUMBERS[described.datatype], "safe"):
            raise InputError(
                f'"{tensor.name}" is {described.datatype}, not {shown(tensor.datatype)}',
                field=tensor.name,
            )
    assert not isinstance(values, list)
    return values if values.dtype == wanted else values.astype(wanted)


def _check_values(matrix: NDArray[Any], name: str, taken: Range | None) -> None:
    """`taken`: the range of whole numbers, which may be doubles by now."""
    if not is_finite(matrix):
        row = int(np.isfinite(matrix).all(axis=1).argmin())
        message = f'row {row}: "{name}" holds a value that is no finite number'
        raise InputError(message, row=row, field=name)
    if taken is None:
        return
    wrong = (matrix < taken.low) | (matrix >= taken.end)
    if wrong.any():
        row, place = (int(each) for each in np.argwhere(wrong)[0])
        raise InputError(
            f'row {row}: "{name}" must be a whole number from {taken}, not '
            f"{int(matrix[row, place])}",
            row=row,
            field=name,
        )


def size_of(name: str, shape: Sequence[int], most_rows: float = math.inf) -> int:
    """How many values a shape stands for; raises InputError where it stands for none, and TooLarge
    where for too many rows, before any value is looked at."""
    if len(shape) > MAX_DIMENSIONS or any(size < 0 for size in shape):
        raise InputError(
            f"{shown(name)} has an impossible shape: at most {MAX_DIMENSIONS} sizes, "
            "none of them negative",
            field=name,
        )
    if shape:
        check_rows(shape[0], most_rows)
    return math.prod(shape)


def _counted(tensor: Tensor) -> int:
    if not tensor.shape or not tensor.shape[0]:
        raise InputError(f'"{tensor.name}" holds no rows', field=tensor.name)
    return tensor.shape[0]


def _list(shape: Sequence[int]) -> str:
    return shown(str(list(shape[:8]))).strip('"')
