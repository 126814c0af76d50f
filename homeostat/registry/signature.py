"""What MLflow's MLmodel file says of a model -> ModelSpec."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.types import ColSpec, DataType, TensorSpec

from homeostat.columns import RESERVED
from homeostat.errors import ModelError
from homeostat.feature_values import BOOLEAN
from homeostat.labels import canonical
from homeostat.records import Feature, FeatureKind, ModelSpec, Task
from homeostat.registry.image_step import image_step

_KINDS = {
    DataType.integer: Feature(name="", integer=True, dtype="int32"),
    DataType.long: Feature(name="", integer=True),
    DataType.float: Feature(name=""),
    DataType.double: Feature(name=""),
    DataType.string: Feature(name="", kind=FeatureKind.CATEGORY),
    DataType.boolean: Feature(name="", kind=FeatureKind.CATEGORY, dtype=BOOLEAN),
}


def spec_of(
    folder: Path, *, model: str, version: str, task: Task, names: tuple[str, ...]
) -> ModelSpec:
    """The spec of a downloaded model, without its files. `names` are those of a tensor's elements.

    Raises ModelError where the model does not say what it takes.
    """
    where = f"version {version} of {model}"
    try:
        logged = Model.load(str(folder))
    except (MlflowException, OSError) as error:
        raise ModelError(f"{where} is not an MLflow model: {error}") from error
    features, shape, dtype = _inputs(logged, names, where)
    metadata = logged.metadata or {}
    return ModelSpec(
        model=model,
        version=version,
        runtime=_runtime(folder, logged, features),
        task=task,
        features=features,
        tensor_shape=shape,
        tensor_dtype=dtype,
        classes=_classes(metadata, where),
        embedding=metadata.get("embedding"),
        postprocessing=_step(metadata, where),
        image=image_step(metadata, shape, dtype, where),
        flavor=_flavor(logged),
        run_id=logged.run_id or "",
    )


def _inputs(
    logged: Model, names: tuple[str, ...], where: str
) -> tuple[tuple[Feature, ...], tuple[int, ...] | None, str]:
    schema = logged.signature.inputs if logged.signature else None
    if schema is None or not schema.inputs:
        raise ModelError(
            f"{where} does not say what it takes; log it with a signature: "
            "log_model(…, input_example=rows), two or more rows, or signature=infer_signature(…)"
        )
    if schema.is_tensor_spec():
        features, shape, dtype = _tensor(schema.inputs, names, where)
        return features, shape, dtype
    return tuple(_column(column, where) for column in schema.inputs), None, "float32"


def _tensor(
    specs: list[TensorSpec], names: tuple[str, ...], where: str
) -> tuple[tuple[Feature, ...], tuple[int, ...], str]:
    if len(specs) != 1:
        raise ModelError(f"{where} takes {len(specs)} tensors; one tensor, or columns, is served")
    _rows, *shape = specs[0].shape
    dtype = np.dtype(specs[0].type)
    if any(size < 1 for size in shape):
        raise ModelError(
            f"{where} takes tensors of shape {specs[0].shape}; only the number of rows may vary"
        )
    if dtype.kind not in "fiub":
        raise ModelError(f"{where} takes a tensor of {dtype}; numbers are served")
    size = math.prod(shape)
    if len(names) != size:
        names = tuple(f"x{i}" for i in range(size))
    whole = dtype.kind in "iu"
    return tuple(Feature(name=name, integer=whole) for name in names), tuple(shape), dtype.name


def _column(column: ColSpec, where: str) -> Feature:
    kind = _KINDS.get(column.type)
    if column.name is None:
        raise ModelError(
            f"{where} has columns without names in its signature; log it with a DataFrame as "
            "input_example"
        )
    if kind is None:
        raise ModelError(
            f'{where}: the column "{column.name}" is of type {column.type}; numbers, strings and '
            "booleans are served"
        )
    if column.name in RESERVED:
        raise ModelError(f'{where}: the platform keeps the column name "{column.name}" for itself')
    return replace(kind, name=str(column.name))


def _classes(metadata: dict[str, Any], where: str) -> tuple[str, ...]:
    classes = metadata.get("classes", ())
    if not isinstance(classes, list | tuple):
        raise ModelError(f'{where}: the metadata "classes" is a list of names, not {classes!r}')
    return tuple(canonical(name) for name in classes)


def _step(metadata: dict[str, Any], where: str) -> str:
    """How outputs become probabilities, by name; the runtime knows the names."""
    step = metadata.get("postprocessing", "")
    if not isinstance(step, str):
        raise ModelError(f'{where}: the metadata "postprocessing" is a name, not {step!r}')
    return step


def _runtime(folder: Path, logged: Model, features: tuple[Feature, ...]) -> str:
    if "pytorch" in logged.flavors and (folder / "data" / "model.pt2").is_file():
        return "torch"
    numbers = all(feature.kind is FeatureKind.NUMBER for feature in features)
    if "onnx" in logged.flavors and (folder / "model.onnx").is_file() and numbers:
        return "onnx"
    return "pyfunc"


def _flavor(logged: Model) -> str:
    named = [str(name) for name in logged.flavors if name != "python_function"]
    return (named or ["python_function"])[0]
