"""How far each column moved, in Evidently's definitions, and how far chance alone would move it.

Numbers: the Wasserstein distance divided by the reference's standard deviation. Categories: the
Jensen-Shannon distance. A column drifted when its distance reaches 0.1, the size of change that
matters, *and* exceeds what shuffling the same rows between reference and window gives. Without
the second condition a window of 200 rows flags a third of all columns on a good day.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from homeostat.records import Feature, FeatureKind, Score

EFFECT_FLOOR = 0.1
WASSERSTEIN = "wasserstein"
JENSEN_SHANNON = "jensenshannon"
PRESENCE = "presence"  # has values on one side only; no distance can say how far that is
SHUFFLES = 24
STANDARD_DEVIATIONS = 3.0  # above the mean of the shuffles
SMALLEST_NORM = 0.001  # Evidently's, for a reference that does not vary

Mask = NDArray[np.bool_]


def scores(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    compared: Sequence[Feature],
    random: np.random.Generator,
) -> tuple[Score, ...]:
    """One score a column, of typed frames; columns that are the same constant, or empty, on both
    sides say nothing and are left out."""
    masks = _masks(len(reference), len(current), random)
    found = []
    for feature in compared:
        pooled = np.concatenate(
            [reference[feature.name].to_numpy(), current[feature.name].to_numpy()]
        )
        score = _score(feature, pooled, masks)
        if score is not None:
            found.append(score)
    return tuple(found)


def drift_share(found: Sequence[Score], among: Sequence[str]) -> float | None:
    """The share of these columns that drifted, of those that could be compared."""
    names = set(among)
    flags = [score.drifted for score in found if score.column in names]
    return sum(flags) / len(flags) if flags else None


def _masks(reference_rows: int, current_rows: int, random: np.random.Generator) -> Mask:
    """Which pooled rows belong to the window: first as it is, then shuffled. The shuffles are
    the same for every column, as whole rows change sides."""
    true = np.arange(reference_rows + current_rows) >= reference_rows
    shuffled = random.permuted(np.tile(true, (SHUFFLES, 1)), axis=1)
    return np.vstack([true, shuffled])


def _score(feature: Feature, pooled: NDArray[np.generic], masks: Mask) -> Score | None:
    number = feature.kind is FeatureKind.NUMBER
    valid = np.isfinite(pooled.astype(float)) if number else ~pd.isna(pooled)
    values, sides = pooled[valid], masks[:, valid]
    if _one_sided(masks[0], sides[0]):
        return Score(column=feature.name, method=PRESENCE, value=1.0, threshold=0.5, drifted=True)
    if values.size == 0 or bool((values == values[0]).all()):
        return None
    distances = _wasserstein(values, sides) if number else _jensen_shannon(values, sides)
    noise = distances[1:].mean() + STANDARD_DEVIATIONS * distances[1:].std()
    threshold = max(EFFECT_FLOOR, float(noise))
    value = float(distances[0])
    return Score(
        column=feature.name,
        method=WASSERSTEIN if number else JENSEN_SHANNON,
        value=value,
        threshold=threshold,
        drifted=value >= threshold,
    )


def _one_sided(all_sides: Mask, sides: Mask) -> bool:
    """Values on one side only, although both sides have rows."""
    return bool(
        all_sides.any() and not all_sides.all() and sides.size and (sides.all() or not sides.any())
    )


def _wasserstein(values: NDArray[np.generic], sides: Mask) -> NDArray[np.float64]:
    """Exact, from one sort for all shuffles: the area between the two distribution functions."""
    order = np.argsort(values, kind="stable")
    ordered = values[order].astype(float)
    norm = max(float(ordered[~sides[0][order]].std()), SMALLEST_NORM)
    windows = sides[:, order]
    gap = np.abs(_distribution(windows) - _distribution(~windows))[:, :-1]
    return np.asarray(gap @ np.diff(ordered)) / norm


def _distribution(members: Mask) -> NDArray[np.float64]:
    counts = np.cumsum(members, axis=1, dtype=float)
    return np.asarray(counts / np.maximum(counts[:, -1:], 1.0))


def _jensen_shannon(values: NDArray[np.generic], sides: Mask) -> NDArray[np.float64]:
    codes, known = pd.factorize(values)
    windows = np.stack([np.bincount(codes[side], minlength=len(known)) for side in sides])
    rest = np.bincount(codes, minlength=len(known)) - windows
    p = rest / np.maximum(rest.sum(axis=1, keepdims=True), 1)
    q = windows / np.maximum(windows.sum(axis=1, keepdims=True), 1)
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return np.sqrt(np.maximum(divergence, 0.0))


def _relative_entropy(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    return np.asarray((p * np.log(ratio)).sum(axis=1))
