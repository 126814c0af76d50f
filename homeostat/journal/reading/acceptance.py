"""Whether a version's rows fit the table's columns: asked before it serves, since rows that do not
fit can only be set aside afterwards."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from homeostat.journal.delta.model_log import ModelLog
from homeostat.journal.encoding.schema import column_of, prediction_fields
from homeostat.records import FeatureKind, ModelSpec
from homeostat.settings_of_serving import JournalSettings

MOST_NAMED = 5


def misfit(log: ModelLog, spec: ModelSpec, settings: JournalSettings) -> str | None:
    """New columns fit, they are appended; columns the version lacks are null in its rows; a tensor
    lies beside named columns. A server may ask: nothing here imports what it must not."""
    schema = log.store.columns(log.predictions)
    if schema is None:
        return None
    there = {field.name: _kind(field.type) for field in schema}
    wanted = {name: _kind(type_) for name, type_ in _columns(spec, settings).items()}
    wrong = [name for name, kind in wanted.items() if there.get(name, kind) != kind]
    if not wrong:
        return None
    said = [f"{name}: {there[name]} in the log, {wanted[name]} in the version" for name in wrong]
    more = f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
    return (
        f"rows of version {spec.version} would not fit the prediction log "
        f"({'; '.join(said[:MOST_NAMED])}{more}): {_way_out(spec, settings, set(wrong))}give the "
        "features other names, or begin a new log ([journal] path)"
    )


def _way_out(spec: ModelSpec, settings: JournalSettings, wrong: set[str]) -> str:
    """A hash is text: what was logged as numbers cannot be hashed from now on, nor the other way
    round."""
    hashed = [name for name in settings.hash if column_of(name) in wrong]
    if hashed:
        return f"take {', '.join(hashed)} out of [journal] hash, or put them in redact; or "
    numbers = [
        each.name
        for each in spec.features
        if each.kind is FeatureKind.NUMBER and column_of(each.name) in wrong
    ]
    if not numbers:
        return ""
    return f"put {', '.join(numbers)} back into [journal] hash, if hashed before; or "


def _columns(spec: ModelSpec, settings: JournalSettings) -> dict[str, Any]:
    """What the version's rows would have, as far as it can differ from another version's."""
    said = {field.name: field.type for field in prediction_fields(spec.task)}
    found = {"prediction": said["prediction"]}
    if settings.inputs != "full" or spec.tensor_shape is not None:
        return found
    for feature in spec.features:
        if feature.name in settings.redact:
            continue
        number = feature.kind is FeatureKind.NUMBER and feature.name not in settings.hash
        found[column_of(feature.name)] = pa.float64() if number else pa.string()
    return found


def _kind(type_: Any) -> str:
    if pa.types.is_floating(type_) or pa.types.is_integer(type_):
        return "numbers"
    return "text" if pa.types.is_string(type_) else str(type_)
