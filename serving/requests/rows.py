"""One row against the version's signature, value by value, to say exactly what is wrong with it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from homeostat.errors import InputError
from homeostat.feature_values import BOOLEANS, is_boolean, ranges_of
from homeostat.records import Feature, FeatureKind, ModelSpec

MAX_DIGITS_BITS = 4096  # longer whole numbers take long to write out
MOST_COMPARED = 200  # names; more would take long
SHOWN = 40  # characters of a wrong value that an error repeats


class RowCheck:
    """What one version takes; `row` returns a row's values in the model's order, flat."""

    def __init__(self, spec: ModelSpec) -> None:
        tensor = spec.tensor_shape is not None
        self.features = spec.features
        self.number = [feature.kind is FeatureKind.NUMBER for feature in spec.features]
        self.boolean = [is_boolean(feature) for feature in spec.features]
        self.ranges = ranges_of(spec)  # of whole numbers
        self.numeric = all(self.number)
        # whole numbers and doubles keep their digits; float32 is what most networks take
        small = tensor and spec.tensor_dtype in ("float16", "bfloat16", "float32")
        self.dtype: type[np.float32] | type[np.float64] = np.float32 if small else np.float64
        self._limit = float(np.finfo(self.dtype).max)
        self._shape = spec.tensor_shape
        self._names = frozenset(spec.names)

    def row(self, index: int, row: Any) -> list[Any]:
        if isinstance(row, dict):
            values = self._by_name(index, row)
        elif isinstance(row, list):
            values = self._by_place(index, row)
        else:
            raise InputError(
                f"row {index} must be a list or an object, not {shown(row)}", row=index
            )
        return [
            self._value(index, place, feature, value)
            for place, (feature, value) in enumerate(zip(self.features, values, strict=True))
        ]

    def _by_name(self, index: int, row: dict[str, Any]) -> list[Any]:
        for name in row:
            if name not in self._names:
                raise InputError(
                    f"row {index}: the model has no feature {shown(name)}"
                    f"{meant(name, [each.name for each in self.features])}",
                    row=index,
                    field=name,
                )
        for feature in self.features:
            if feature.name not in row:
                raise InputError(
                    f'row {index}: the feature "{feature.name}" is missing',
                    row=index,
                    field=feature.name,
                )
        return [row[feature.name] for feature in self.features]

    def _by_place(self, index: int, row: list[Any]) -> list[Any]:
        shape = self._shape
        if shape is not None and len(shape) > 1 and row and isinstance(row[0], list):
            return self._flat(index, row, shape)
        if len(row) != len(self.features):
            raise InputError(
                f"row {index} has {len(row)} values, the model takes {len(self.features)}",
                row=index,
            )
        return row

    def _flat(self, index: int, part: Any, shape: tuple[int, ...]) -> list[Any]:
        if not shape:
            return [part]
        if not isinstance(part, list) or len(part) != shape[0]:
            whole = "x".join(str(size) for size in self._shape or ())
            raise InputError(f"row {index} is not of the model's shape, {whole}", row=index)
        return [value for inner in part for value in self._flat(index, inner, shape[1:])]

    def _value(self, index: int, place: int, feature: Feature, value: Any) -> Any:
        if self.number[place]:
            return self._number(index, place, feature, value)
        if self.boolean[place]:
            text = BOOLEANS.get(value) if isinstance(value, bool | int | float | str) else None
            if text is None:
                raise _wrong(index, feature, value, "true or false")
            return text
        if not isinstance(value, str):
            raise _wrong(index, feature, value, "a string")
        return value

    def _number(self, index: int, place: int, feature: Feature, value: Any) -> int | float:
        def wrong(expected: str) -> InputError:
            return _wrong(index, feature, value, expected)

        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong("a number")
        try:
            number = float(value)
        except OverflowError:
            raise wrong(f"a number up to {self._limit:.4g}") from None
        if not math.isfinite(number) or abs(number) > self._limit:
            raise wrong(f"a finite number up to {self._limit:.4g}")
        taken = self.ranges[place]
        if taken is not None:
            if not number.is_integer() or not taken.low <= number < taken.end:
                raise wrong(f"a whole number from {taken}")
            return int(number)
        return number


def _wrong(index: int, feature: Feature, value: Any, expected: str) -> InputError:
    return InputError(
        f'row {index}: "{feature.name}" must be {expected}, not {shown(value)}',
        row=index,
        field=feature.name,
    )


def meant(name: str, known: Sequence[str]) -> str:
    """The end of an error: which of the names somebody may have misspelt."""
    if len(known) > MOST_COMPARED:
        return ""
    close = get_close_matches(name[:SHOWN], known, n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def shown(value: Any) -> str:
    """A value as an error repeats it: as JSON has it, short, and safe to print."""
    match value:
        case dict():
            return "an object"
        case list():
            return "a list"
        case str():
            text = json.dumps(value[: SHOWN + 1])
        case int() if value.bit_length() > MAX_DIGITS_BITS:
            return "a huge number"
        case _:
            text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
