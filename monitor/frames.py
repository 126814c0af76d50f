"""Tables as the monitor compares them: numbers as float64, categories as canonical text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from homeostat import columns
from homeostat.errors import NotReady
from homeostat.labels import canonical
from homeostat.records import Feature, FeatureKind, Task

MOST_CATEGORIES = 50
OTHERS = "(others)"


def compared(features: Sequence[Feature], task: Task) -> tuple[Feature, ...]:
    """What a check compares: the features and, last, the model's own predictions."""
    kind = FeatureKind.NUMBER if task is Task.REGRESSION else FeatureKind.CATEGORY
    return (*features, Feature(name=columns.PREDICTION, kind=kind))


def typed(frame: pd.DataFrame, wanted: Sequence[Feature], what: str) -> pd.DataFrame:
    """These columns in their kinds, with the frame's index; `what` names the table in errors."""
    missing = [feature.name for feature in wanted if feature.name not in frame.columns]
    if missing:
        raise NotReady(
            f"{what} lacks the column(s) {', '.join(missing[:5])}: it was written for a model "
            "with other features; a retraining writes a new one"
        )
    return pd.DataFrame(
        {
            feature.name: _number(frame[feature.name])
            if feature.kind is FeatureKind.NUMBER
            else text(frame[feature.name])
            for feature in wanted
        },
        index=frame.index,
    )


def _number(values: pd.Series) -> pd.Series:
    return pd.to_numeric(values, errors="coerce").astype("float64")


def text(values: pd.Series) -> pd.Series:
    """Canonical text of each value, None where there is none."""
    codes, known = pd.factorize(values, use_na_sentinel=True)
    names = np.array([_name(value) for value in known] + [None], dtype=object)
    return pd.Series(names[codes], index=values.index, dtype=object)


def _name(value: object) -> str | None:
    try:
        return canonical(value)
    except ValueError:  # an infinity among categories: as good as missing
        return None


def generator(check_id: str) -> np.random.Generator:
    """The same check draws the same rows, however often it is run."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(check_id.encode()).digest()[:8]))


def sampled(frame: pd.DataFrame, rows: int, random: np.random.Generator) -> pd.DataFrame:
    """At most so many rows, in their order."""
    if len(frame) <= rows:
        return frame
    return frame.iloc[np.sort(random.choice(len(frame), rows, replace=False))]


def lumped(
    reference: pd.DataFrame, current: pd.DataFrame, compared: Sequence[Feature]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables with the rare values of columns that have very many joined into one: a distance
    over thousands of categories measures mostly which of them happened to be drawn."""
    reference, current = reference.copy(deep=False), current.copy(deep=False)
    for feature in compared:
        if feature.kind is FeatureKind.NUMBER:
            continue
        both = (reference[feature.name], current[feature.name])
        counts = pd.concat(both).value_counts()
        if len(counts) <= MOST_CATEGORIES:
            continue
        kept = set(counts.index[: MOST_CATEGORIES - 1])
        for frame, column in zip((reference, current), both, strict=True):
            frame[feature.name] = column.where(column.isin(kept) | column.isna(), OTHERS)
    return reference, current
