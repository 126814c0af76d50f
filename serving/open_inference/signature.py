"""A version's inputs and outputs in the protocol's words."""

from __future__ import annotations

from typing import NamedTuple

from homeostat.feature_values import is_boolean
from homeostat.records import Feature, FeatureKind, ModelSpec, Task
from serving.open_inference.datatypes import BYTES, name_of

TENSOR = "input"  # the one input of a model that takes a tensor
PREDICTION, PROBABILITIES, EMBEDDING = "prediction", "probabilities", "embedding"
PREDICTION_ID = "prediction_id"  # what labels refer to; also an input: the caller's own
KEY = "key"  # an input: whom or what a row is about
ANY = -1


class Described(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]


def inputs_of(spec: ModelSpec) -> list[Described]:
    """One tensor, or one input a column."""
    if spec.tensor_shape is not None:
        return [Described(TENSOR, name_of(spec.tensor_dtype), (ANY, *spec.tensor_shape))]
    return [Described(feature.name, _datatype(feature), (ANY,)) for feature in spec.features]


def outputs_of(spec: ModelSpec) -> list[Described]:
    classification = spec.task is Task.CLASSIFICATION
    outputs = [Described(PREDICTION, BYTES if classification else "FP64", (ANY,))]
    if classification and spec.classes:
        outputs.append(Described(PROBABILITIES, "FP32", (ANY, len(spec.classes))))
    outputs.append(Described(PREDICTION_ID, BYTES, (ANY,)))
    if spec.embedding is not None:
        outputs.append(Described(EMBEDDING, "FP32", (ANY, ANY)))
    return outputs


def optional_inputs_of(spec: ModelSpec) -> list[str]:
    """What may come beside the features: names that no feature has."""
    taken = {each.name for each in inputs_of(spec)}
    return [name for name in (PREDICTION_ID, KEY) if name not in taken]


def _datatype(feature: Feature) -> str:
    if is_boolean(feature):
        return "BOOL"
    if feature.kind is FeatureKind.CATEGORY:
        return BYTES
    return "INT64" if feature.integer else "FP64"
