"""Rows as they came over the wire -> what a model's signature asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat.errors import ModelError
from homeostat.feature_values import BOOLEANS
from homeostat.model_runtime import wire

_NUMBERS = {"integer": "int32", "long": "int64", "float": "float32", "double": "float64"}


class Inputs:
    """`schema` is MLflow's; the tensor's shape is the set-up's."""

    def __init__(self, setup: wire.Setup, schema: Any) -> None:
        self._setup = setup
        columns = [] if schema is None or schema.is_tensor_spec() else schema.inputs
        self._types = {column.name: column.type.name for column in columns}
        tensor = schema is not None and schema.is_tensor_spec()
        self._tensor_name = schema.inputs[0].name if tensor else None

    def of(self, rows: wire.Rows) -> Any:
        """A tensor as numpy has it, or a DataFrame whose columns have the signature's types."""
        if self._setup.tensor_shape is not None:
            assert rows.matrix is not None
            return self._tensor(rows.matrix.read())
        import pandas as pd  # a model that takes a tensor may do without

        if rows.matrix is not None:
            columns: Any = dict(zip(self._types, rows.matrix.read().T, strict=True))
        else:
            columns = rows.columns or {}
        missing = [name for name in self._types if name not in columns]
        if missing:
            raise ModelError(f"the columns {', '.join(missing)} are missing")
        typed = {name: _typed(columns[name], kind, name) for name, kind in self._types.items()}
        return pd.DataFrame(typed)

    def sample(self, rows: int) -> Any:
        """A tensor that any model of this signature should be able to answer."""
        shape = (rows, int(np.prod(self._setup.tensor_shape or ())))
        return self._tensor(np.random.default_rng(0).random(shape))

    def made_up(self, rows: int) -> Any:
        """Columns of the signature's types that say nothing: 0, "" and false."""
        nothing = {"string": "", "boolean": False}
        columns = {name: [nothing.get(kind, 0)] * rows for name, kind in self._types.items()}
        return self.of(wire.Rows(rows=rows, columns=columns))

    def _tensor(self, matrix: NDArray[Any]) -> Any:
        assert self._setup.tensor_shape is not None
        tensor = matrix.astype(self._setup.tensor_dtype)
        tensor = tensor.reshape(len(matrix), *self._setup.tensor_shape)
        return tensor if self._tensor_name is None else {self._tensor_name: tensor}


def _typed(values: Sequence[Any] | NDArray[Any], kind: str, name: str) -> Any:
    if kind == "boolean":
        texts = [BOOLEANS.get(value) for value in values]
        if None in texts:
            wrong = values[texts.index(None)]
            raise ModelError(f'the column "{name}" takes true or false, and not {wrong!r:.60}')
        return np.array([text == "true" for text in texts], bool)
    if kind == "string":
        return np.array([None if v is None else str(v) for v in values], dtype=object)
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "iu":
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(f'the column "{name}" is not all numbers: {error}') from error
    if kind in ("integer", "long") and not np.isfinite(array).all():
        raise ModelError(
            f'the column "{name}" takes whole numbers, and one is missing; log the model with '
            "that column as float where values may be missing"
        )
    typed = array.astype(_NUMBERS[kind])
    if kind in ("integer", "long") and not np.array_equal(typed, array):
        raise ModelError(f'the column "{name}" takes whole numbers of type {_NUMBERS[kind]}')
    return typed
