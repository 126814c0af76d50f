"""Whether two versions take and give the same, so that one may answer for the other."""

from __future__ import annotations

from homeostat.records import Feature, FeatureKind, ModelSpec


def alike(one: ModelSpec, other: ModelSpec) -> bool:
    """Whether what was read for one can be answered by the other."""
    return (
        one.features == other.features
        and one.tensor_shape == other.tensor_shape
        and one.tensor_dtype == other.tensor_dtype
        and one.classes == other.classes
        and one.image == other.image
    )


def difference(one: ModelSpec, other: ModelSpec) -> str | None:
    """In words, what the other has that the one has not; None where they are alike."""
    if alike(one, other):
        return None
    if one.tensor_shape != other.tensor_shape:
        return f"it takes {_form(other)}, not {_form(one)}"
    if one.features != other.features:
        return _features(one, other)
    if one.tensor_dtype != other.tensor_dtype:
        return f"its tensor is of {other.tensor_dtype}, not {one.tensor_dtype}"
    if one.classes != other.classes:
        return f"its classes are {', '.join(other.classes)}, not {', '.join(one.classes)}"
    return "it makes another tensor of an image"


def _form(spec: ModelSpec) -> str:
    if spec.tensor_shape is None:
        return "named columns"
    return f"tensors of {' x '.join(map(str, spec.tensor_shape))}"


def _features(one: ModelSpec, other: ModelSpec) -> str:
    mine, its = ({each.name: each for each in spec.features} for spec in (one, other))
    missing, more = mine.keys() - its.keys(), its.keys() - mine.keys()
    changed = [name for name in mine if name in its and mine[name] != its[name]]
    said = []
    if more:
        said.append(f"it also takes {', '.join(sorted(more))}")
    if missing:
        said.append(f"it does not take {', '.join(sorted(missing))}")
    said += [f"{name} is {_kind(its[name])}, not {_kind(mine[name])}" for name in changed]
    return "; ".join(said) or "it takes the same features in another order"


def _kind(feature: Feature) -> str:
    if feature.kind is FeatureKind.CATEGORY:
        kind = "a category"
    else:
        kind = "a whole number" if feature.integer else "a number"
    return f"{kind} ({feature.dtype})" if feature.dtype else kind
