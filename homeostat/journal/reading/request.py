"""Which rows of a window are wanted, and which of their columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from homeostat import columns as names
from homeostat.errors import InputError
from homeostat.journal.encoding.schema import INPUT, column_of
from homeostat.journal.reading import rows
from homeostat.journal.reading.recorded import other_width
from homeostat.labels import LABEL, canonical

SHADOW = "shadow"  # answers that nobody got, under the ids of those that somebody did
BATCH = "batch"  # of `homeostat score`: no traffic, and no sign of how the world moves
UNASKED = (SHADOW, BATCH)  # roles that are read where they are asked for
SELECTING = ("prediction_id", "time", "version", "role", "weight", "recorded")
VECTORS = (names.PROBABILITIES, names.EMBEDDING)
MORE = {
    names.PROBABILITIES: "probabilities",
    names.EMBEDDING: "embedding",
    names.ROLE: "role",
    names.KEY: "key",
    names.WEIGHT: "weight",
    names.DESCRIPTORS: "descriptors",
    names.RECORDED: "recorded",
}


class Asked(TypedDict, total=False):
    """What a reading of rows may be asked beside its features; Journal.window says what it means.
    Filters (versions, roles, where) come first: of the rows they leave, the newest of an id."""

    versions: Sequence[str]
    roles: Sequence[str]
    where: Mapping[str, Collection[Any]] | None
    embedding: bool
    also: Sequence[str]
    quarantined: bool
    weights: bool
    label: str
    as_recorded: Collection[str]


@dataclass(frozen=True, kw_only=True)
class Request:
    features: tuple[str, ...]
    versions: tuple[str, ...] = ()  # empty: every version
    roles: tuple[str, ...] = ()  # empty: every role but shadow and batch
    where: Mapping[str, Collection[Any]] = field(default_factory=dict)  # feature: allowed values
    more: tuple[str, ...] = ()  # of MORE, or LABEL_KNOWN, beside what every window has
    quarantined: bool = False
    weights: bool = False  # every row with its weight, instead of rows that stand for equally many
    label: str = LABEL
    as_recorded: frozenset[str] = frozenset()  # features taken also where they were hidden

    def light(self, schema: Any) -> list[str]:
        """The table's columns that decide which rows are wanted."""
        sliced = self._inputs(schema, self.where)
        return list(dict.fromkeys([*SELECTING, *sliced]))

    def full(self, schema: Any) -> list[str]:
        """And those that are read of them."""
        more = [MORE[name] for name in self.more if name != names.LABEL_KNOWN]
        return list(dict.fromkeys([*self.telling(schema), "prediction", *more]))

    def telling(self, schema: Any) -> list[str]:
        """The light ones and the inputs: which rows are wanted, and which of them hold what is."""
        inputs = self._inputs(schema, [*self.features, *self.where])
        return list(dict.fromkeys([*SELECTING, *inputs]))

    def row_filter(self, schema: Any) -> Any | None:
        """What files can leave out by their statistics, as an expression."""
        found = [_role_filter(self.roles)] if "role" in schema.names else []
        if self.versions and "version" in schema.names:
            found.append(pc.field("version").isin(list(self.versions)))
        for feature, allowed in self.where.items():
            found += _pushed(schema, feature, allowed)
        condition = None
        for each in found:
            condition = each if condition is None else condition & each
        return condition

    def sliced(self, found: Any, schema: Any) -> Any:
        """The rows within the slice, as far as only their values tell: a tensor's elements."""
        if not self.where or INPUT not in schema.names:
            return found
        by_name = dict(
            zip(self.features, rows.feature_columns(found, self.features, schema), strict=True)
        )
        for feature in self.where:
            if feature not in by_name:
                own = rows.feature_columns(found.drop_columns([INPUT]), [feature], schema)
                by_name[feature] = own[0]
        keep: Any = None
        for feature, allowed in self.where.items():
            values = by_name[feature]
            if pa.types.is_floating(values.type):
                values = values.cast(pa.float32(), safe=False)  # as precise as a tensor's elements
            inside = pc.is_in(values, value_set=_value_set(values.type, feature, allowed))
            if None in allowed:
                inside = pc.or_(inside, values.is_null())
            keep = inside if keep is None else pc.and_(keep, inside)
        # of a tensor of another width nobody knows; it is told as left out
        return found.filter(pc.or_(keep, pa.array(other_width(found, self.features))))

    def _inputs(self, schema: Any, features: Collection[str]) -> list[str]:
        if not features:
            return []
        columns = [column_of(feature) for feature in features]
        return [name for name in (INPUT, *columns) if name in schema.names]


def request_of(features: Sequence[str], asked: Asked) -> Request:
    roles, weights = asked.get("roles", ()), asked.get("weights", False)
    more = [
        *(VECTORS if asked.get("embedding") else ()),
        *((names.ROLE,) if roles else ()),
        *asked.get("also", ()),
        *((names.WEIGHT,) if weights else ()),
    ]
    return Request(
        features=tuple(features),
        versions=tuple(asked.get("versions", ())),
        roles=tuple(roles),
        where=asked.get("where") or {},
        more=tuple(dict.fromkeys(more)),
        quarantined=asked.get("quarantined", False),
        weights=weights,
        label=asked.get("label", LABEL),
        as_recorded=frozenset(asked.get("as_recorded", ())),
    )


def _role_filter(roles: Sequence[str]) -> Any:
    role = pc.field("role")
    return role.isin(list(roles)) if roles else ~role.isin(list(UNASKED)) | role.is_null()


def _pushed(schema: Any, feature: str, allowed: Collection[Any]) -> list[Any]:
    name = column_of(feature)
    if name in schema.names:
        field_, type_ = pc.field(name), schema.field(name).type
        condition = field_.isin(_value_set(type_, feature, allowed))
        if None in allowed:
            condition = condition | field_.is_null()
        if INPUT in schema.names:
            condition = condition | pc.field(INPUT).is_valid()
        return [condition]
    if INPUT in schema.names or None in allowed:
        return []
    return [pc.scalar(False)]


def _value_set(type_: Any, feature: str, allowed: Collection[Any]) -> Any:
    known = [value for value in allowed if value is not None]
    try:
        if pa.types.is_string(type_):
            return pa.array([canonical(value) for value in known], type_)
        return pa.array([float(value) for value in known], pa.float64()).cast(type_, safe=False)
    except (ValueError, TypeError) as problem:
        raise InputError(
            f'a slice of "{feature}", which holds {type_}, cannot be {known}: {problem}'
        ) from problem
