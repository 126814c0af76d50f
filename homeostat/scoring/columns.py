"""Columns of a table -> what the model takes, and which rows it cannot take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from homeostat.errors import InputError
from homeostat.feature_values import BOOLEANS, Range

_SHOWN = 40

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Column:
    """One feature's values. Where `ok` is False, the value is nothing the model takes."""

    values: Any  # float64, or a list of texts
    ok: Flags
    given: Any  # the column as it came, to say what is wrong
    wanted: str

    def problem(self, row: int) -> str:
        value = self.given[row].as_py()
        if value is None:
            return "is missing"
        text = str(value)
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        return f"must be {self.wanted}, not {shown!r}"


def is_number(type_: Any) -> bool:
    """Text may hold numbers; whether it does is seen row by row."""
    t = pa.types
    if t.is_dictionary(type_):
        type_ = type_.value_type
    plain = (t.is_integer, t.is_floating, t.is_decimal, t.is_boolean, t.is_null)
    return is_text(type_) or any(is_a(type_) for is_a in plain)


def is_category(type_: Any) -> bool:
    t = pa.types
    if t.is_dictionary(type_):
        type_ = type_.value_type
    return is_text(type_) or any(is_a(type_) for is_a in (t.is_boolean, t.is_integer, t.is_null))


def is_text(type_: Any) -> bool:
    t = pa.types
    return bool(t.is_string(type_) or t.is_large_string(type_) or t.is_string_view(type_))


def number_column(given: Any, taken: Range | None, limit: float) -> Column:
    """`taken`: of whole numbers; None where any will do."""
    column = _plain(given)
    values = _floats(column)
    with np.errstate(invalid="ignore"):
        ok = np.isfinite(values) & (np.abs(values) <= limit)
        if taken is not None:
            ok &= within(values, taken)
    wanted = "a finite number" if taken is None else f"a whole number from {taken}"
    return Column(values, ok, column, wanted)


def within(values: NDArray[Any], taken: Range) -> Flags:
    found: Flags = (np.floor(values) == values) & (values >= taken.low) & (values < taken.end)
    return found


def boolean_column(given: Any) -> Column:
    """As the texts that the log has of a boolean."""
    column = category_column(given)
    texts = [BOOLEANS.get(value) for value in column.values]
    ok = np.array([text is not None for text in texts], bool)
    return Column(texts, ok, column.given, "true or false")


def category_column(given: Any) -> Column:
    column = _plain(given)
    if pa.types.is_null(column.type):
        column = column.cast(pa.string())
    texts = column if is_text(column.type) else column.cast(pa.string())
    ok = texts.is_valid().to_numpy(zero_copy_only=False)
    return Column(texts.to_pylist(), ok, column, "text")


def tensor_rows(
    given: Any, shape: tuple[int, ...], limit: float, dtype: type
) -> tuple[NDArray[Any], Flags, str]:
    """A column of lists as (rows, elements), and what a row should have been. Rows that are not
    `ok` hold nothing of use."""
    column = given.storage if isinstance(given, pa.ExtensionArray) else given
    rows, size = len(column), int(np.prod(shape))
    whole = "x".join(str(each) for each in shape)
    wanted = f"a list of {size} finite numbers" + (f" ({whole})" if len(shape) > 1 else "")
    ok = np.asarray(column.is_valid().to_numpy(zero_copy_only=False)).copy()
    owner = np.arange(rows)  # the row that each list of this level belongs to
    depth, sizes = _depth(column.type), list(shape)
    if depth == 1:
        sizes = [size]
    if depth != len(sizes):
        raise InputError(f"lists in {depth} levels are no tensor of shape {whole}")
    for level in sizes:
        lengths = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
        ok[owner[lengths != level]] = False
        owner = owner[pc.list_parent_indices(column).to_numpy(zero_copy_only=False)]
        column = pc.list_flatten(column)
    if not is_number(column.type) or is_text(column.type):
        raise InputError(f"lists of {column.type} are no numbers")
    values = _floats(column)
    with np.errstate(invalid="ignore"):
        ok[owner[~(np.isfinite(values) & (np.abs(values) <= limit))]] = False
    matrix: NDArray[Any] = np.zeros((rows, size), dtype)
    matrix[ok] = values[ok[owner]].reshape(-1, size)
    return matrix, ok, wanted


def _depth(type_: Any) -> int:
    t, depth = pa.types, 0
    while t.is_list(type_) or t.is_large_list(type_) or t.is_fixed_size_list(type_):
        type_, depth = type_.value_type, depth + 1
    return depth


def is_tensor(type_: Any) -> bool:
    return isinstance(type_, pa.FixedShapeTensorType) or _depth(type_) > 0


def _plain(given: Any) -> Any:
    return given.dictionary_decode() if pa.types.is_dictionary(given.type) else given


def _floats(column: Any) -> NDArray[np.float64]:
    """What is missing or no number is NaN."""
    if is_text(column.type):
        column = _parsed(column)
    numbers = column.cast(pa.float64(), safe=False).fill_null(float("nan"))
    found: NDArray[np.float64] = numbers.to_numpy(zero_copy_only=False)
    return found


def _parsed(column: Any) -> Any:
    trimmed = pc.utf8_trim_whitespace(column.cast(pa.string()))
    try:
        return trimmed.cast(pa.float64())
    except pa.ArrowInvalid:
        return pa.array([_number(text) for text in trimmed.to_pylist()], pa.float64())


def _number(text: str | None) -> float | None:
    try:
        return None if text is None or "_" in text else float(text)
    except ValueError:
        return None


def first_problem(columns: Sequence[tuple[str, Column]], row: int) -> tuple[str, str]:
    """The column and what is wrong with it, of the first that is not in order."""
    return next(
        (name, f'"{name}" {column.problem(row)}') for name, column in columns if not column.ok[row]
    )
