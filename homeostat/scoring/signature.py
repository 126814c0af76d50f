"""A version's signature against an input: which columns it takes, and its rows of each block."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from homeostat.errors import InputError
from homeostat.feature_values import Range, is_boolean, ranges_of
from homeostat.model_runtime.contract import Batch
from homeostat.records import Feature, FeatureKind, ModelSpec
from homeostat.scoring import columns
from homeostat.scoring.parts import BadRow, Block
from homeostat.settings_reader import nearest


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Of a block, the rows that the model takes."""

    places: Any  # their positions in the block
    batch: Batch
    bad: tuple[BadRow, ...]


class Signature:
    """Raises InputError at once where the input's columns cannot be what the version takes."""

    def __init__(self, spec: ModelSpec, schema: Any, *, tensor: str | None = None) -> None:
        self._spec = spec
        self._tensor = _tensor_column(spec, schema, tensor)
        self.taken = (self._tensor,) if self._tensor else spec.names
        if self._tensor is None:
            _check(spec, schema)
        small = spec.tensor_shape is not None and spec.tensor_dtype in ("float16", "float32")
        self._dtype = np.float32 if small else np.float64
        self._limit = float(np.finfo(self._dtype).max)
        self._ranges = ranges_of(spec)
        self.numeric = all(feature.kind is FeatureKind.NUMBER for feature in spec.features)

    def rows(self, block: Block) -> Taken:
        if self._tensor:
            return self._tensors(block)
        found = [
            (feature.name, self._column(block.batch.column(feature.name), feature, taken))
            for feature, taken in zip(self._spec.features, self._ranges, strict=True)
        ]
        ok = np.ones(len(block.batch), bool)
        for _, column in found:
            ok &= column.ok
        places = np.flatnonzero(ok)
        bad = [
            BadRow(row=block.rows[at], column=name, problem=problem)
            for at in np.flatnonzero(~ok).tolist()
            for name, problem in [columns.first_problem(found, at)]
        ]
        batch = self._batch([column for _, column in found], places, whole=len(places) == len(ok))
        return Taken(places=places, batch=batch, bad=tuple(bad))

    def _column(self, given: Any, feature: Feature, taken: Range | None) -> columns.Column:
        if is_boolean(feature):
            return columns.boolean_column(given)
        if feature.kind is FeatureKind.CATEGORY:
            return columns.category_column(given)
        return columns.number_column(given, taken, self._limit)

    def _batch(self, found: Sequence[columns.Column], places: Any, *, whole: bool) -> Batch:
        if self.numeric:
            matrix = np.stack([column.values for column in found], axis=1)
            matrix = (matrix if whole else matrix[places]).astype(self._dtype, copy=False)
            return Batch(len(places), matrix=matrix)
        values = {}
        for feature, column in zip(self._spec.features, found, strict=True):
            given = column.values
            if not whole:
                given = [given[at] for at in places.tolist()]
            if feature.kind is FeatureKind.NUMBER:
                numbers = np.asarray(given)
                given = (numbers.astype(np.int64) if feature.integer else numbers).tolist()
            values[feature.name] = given
        return Batch(len(places), columns=values)

    def _tensors(self, block: Block) -> Taken:
        shape = self._spec.tensor_shape or ()
        given = block.batch.column(self._tensor)
        try:
            matrix, ok, wanted = columns.tensor_rows(given, shape, self._limit, self._dtype)
        except InputError as error:
            raise InputError(f'the column "{self._tensor}": {error}') from error
        taken = next(iter(self._ranges), None)
        if taken is not None:
            wanted = f"{wanted.replace('finite', 'whole')} from {taken}"
            ok &= columns.within(matrix, taken).all(axis=1)
        places = np.flatnonzero(ok)
        problem = f'"{self._tensor}" must be {wanted}'
        bad = tuple(
            BadRow(row=block.rows[at], column=self._tensor or "", problem=problem)
            for at in np.flatnonzero(~ok).tolist()
        )
        matrix = matrix if len(places) == len(ok) else matrix[places]
        return Taken(places=places, batch=Batch(len(places), matrix=matrix), bad=bad)


def part_of(batch: Batch, start: int, stop: int) -> Batch:
    if batch.matrix is not None:
        return Batch(stop - start, matrix=batch.matrix[start:stop])
    values = {name: given[start:stop] for name, given in (batch.columns or {}).items()}
    return Batch(stop - start, columns=values)


def _tensor_column(spec: ModelSpec, schema: Any, named: str | None) -> str | None:
    """The one column of lists that holds a whole row; None: each element has a column."""
    if spec.tensor_shape is None:
        if named:
            raise InputError(f"version {spec.version} takes columns, no tensor: leave out --tensor")
        return None
    if named is not None:
        if named not in schema.names:
            raise InputError(f'there is no column "{named}"{nearest(named, schema.names)}')
        if not columns.is_tensor(schema.field(named).type):
            raise InputError(f'the column "{named}" is {schema.field(named).type}, no list')
        return named
    if set(spec.names) <= set(schema.names):
        return None
    lists = [field.name for field in schema if columns.is_tensor(field.type)]
    if len(lists) == 1:
        return str(lists[0])
    shape = "x".join(str(size) for size in spec.tensor_shape)
    if lists:
        raise InputError(
            f"version {spec.version} takes a tensor of {shape}, and {', '.join(lists)} are columns "
            "of lists: say by --tensor which one it is"
        )
    return None


def _check(spec: ModelSpec, schema: Any) -> None:
    missing = [name for name in spec.names if name not in schema.names]
    if missing:
        shown = ", ".join(f'"{name}"' for name in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        near = difflib.get_close_matches(missing[0], schema.names, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise InputError(
            f"version {spec.version} of {spec.model} takes the column"
            f"{'s' if len(missing) > 1 else ''} {shown}{more}, which the input does not have; it "
            f"has {_some(schema.names)}{hint}",
            field=missing[0],
        )
    for feature in spec.features:
        if schema.names.count(feature.name) > 1:
            raise InputError(f'the input has the column "{feature.name}" twice', field=feature.name)
        type_ = schema.field(feature.name).type
        number = feature.kind is FeatureKind.NUMBER
        if not (columns.is_number(type_) if number else columns.is_category(type_)):
            wanted = "numbers" if number else "text"
            raise InputError(
                f'the column "{feature.name}" is {type_}, and the version takes {wanted}',
                field=feature.name,
            )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (" …" if len(names) > 10 else "")


def chosen(batch: Batch, places: Any) -> Batch:
    """Some of the rows, by their places."""
    if len(places) == batch.rows:
        return batch
    if batch.matrix is not None:
        return Batch(len(places), matrix=batch.matrix[places])
    values = {
        name: [given[at] for at in places.tolist()] for name, given in (batch.columns or {}).items()
    }
    return Batch(len(places), columns=values)
