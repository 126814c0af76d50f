"""Values that cannot be right, told apart from values that merely moved.

Measured against the rows the version was trained on: those define what a feature means. Drift
moves values within reach of what was seen; a bug (a wrong unit, a broken join, a renamed code)
leaves it altogether.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from homeostat.records import DataBug, Feature, FeatureKind

Mask = NDArray[np.bool_]

OUT_OF_RANGE = "out_of_range"
MISSING = "missing"
UNSEEN_CATEGORY = "unseen_category"
CONSTANT_WIDTH = 10.0  # times the value
SCATTERED = 10.0  # times bug_share, for unseen values that are many and rare
NOISE = 3.0  # standard deviations of sampling noise before a share has risen


@dataclass(frozen=True)
class Findings:
    bugs: tuple[DataBug, ...]
    bad: Mask  # one entry a row of the window, in its order


@dataclass(frozen=True)
class _Problem:
    name: str
    rows: Mask
    detail: str


def find(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    features: Sequence[Feature],
    *,
    bug_share: float,
    range_slack: float,
) -> Findings:
    """The bugs of a window of typed rows (monitor.frames.typed), and which rows have one.

    Each row is judged by itself, so the order of rows changes nothing. An impossible value makes
    its row bad only when more than `bug_share` of the rows have one in that column: less is a
    freak, not a bug.
    """
    bad = np.zeros(len(current), dtype=bool)
    if len(reference) == 0 or len(current) == 0:
        return Findings((), bad)
    limits = _limits(reference, features, range_slack)
    bugs = []
    for feature in features:
        old, new = reference[feature.name], current[feature.name]
        problems = [_missing(old, new, bug_share)]
        if feature.kind is FeatureKind.NUMBER:
            problems.append(_out_of_range(old, new, limits.get(feature.name), bug_share))
        else:
            problems.append(_unseen(old, new, bug_share))
        for problem in problems:
            if problem is None:
                continue
            bad |= problem.rows
            bugs.append(
                DataBug(
                    column=feature.name,
                    problem=problem.name,
                    rows=int(problem.rows.sum()),
                    share=float(problem.rows.mean()),
                    detail=problem.detail,
                )
            )
    return Findings(tuple(bugs), bad)


def _limits(
    reference: pd.DataFrame, features: Sequence[Feature], slack: float
) -> Mapping[str, tuple[float, float]]:
    """What each number may be: the reference's range, widened by `slack` times its width.

    A column that does not vary says little of what it may be: it gets ten times its value's size
    (training rows of January only do not make February a bug). Where most columns are about as
    wide as the widest they share a unit (the pixels of an image), and the narrow ones get that
    width too: ink moving into a corner that was always blank is no bug.
    """
    ranges = {}
    for feature in features:
        if feature.kind is FeatureKind.NUMBER:
            values = reference[feature.name].to_numpy()
            values = values[np.isfinite(values)]
            if values.size:
                ranges[feature.name] = (float(values.min()), float(values.max()))
    widths = np.array([high - low for low, high in ranges.values()])
    shared = 0.0
    if widths.size > 2 and np.median(widths) >= widths.max() / 2:
        shared = float(widths.max())
    limits = {}
    for name, (low, high) in ranges.items():
        width = max(high - low or CONSTANT_WIDTH * max(abs(high), 1.0), shared)
        limits[name] = (low - slack * width, high + slack * width)
    return limits


def _out_of_range(
    old: pd.Series, new: pd.Series, limits: tuple[float, float] | None, bug_share: float
) -> _Problem | None:
    if limits is None:
        return None
    values = new.to_numpy()
    rows = (values < limits[0]) | (values > limits[1])
    if rows.mean() <= bug_share:
        return None
    wrong, seen = values[rows], old.to_numpy()[np.isfinite(old.to_numpy())]
    parts = []
    if wrong.max() > limits[1]:
        parts.append(f"up to {wrong.max():g}")
    if wrong.min() < limits[0]:
        parts.append(f"down to {wrong.min():g}")
    detail = f"values {' and '.join(parts)}, reference {seen.min():g} to {seen.max():g}"
    return _Problem(OUT_OF_RANGE, rows, detail)


def _missing(old: pd.Series, new: pd.Series, bug_share: float) -> _Problem | None:
    rows = new.isna().to_numpy()
    before, now = float(old.isna().mean()), float(rows.mean())
    pooled = (before * len(old) + now * len(new)) / (len(old) + len(new))
    noise = NOISE * math.sqrt(pooled * (1 - pooled) * (1 / len(old) + 1 / len(new)))
    # More than doubled: a few more gaps where gaps are usual is drift.
    if now <= 2 * before + bug_share or now - before <= noise:
        return None
    return _Problem(MISSING, rows, f"{now:.1%} missing, reference {before:.1%}")


def _unseen(old: pd.Series, new: pd.Series, bug_share: float) -> _Problem | None:
    """Values the reference never had, where one of them is frequent (a code was renamed), or many
    are (the text is garbled). Rare newcomers, such as an airport that opens, are drift."""
    counts = old.value_counts()
    if counts.empty:
        return None
    rows = (new.notna() & ~new.isin(counts.index)).to_numpy()
    if not rows.any():
        return None
    unseen = new[rows].value_counts()
    # Good and Turing: the values seen once tell how much the reference has not seen.
    expected = float((counts == 1).sum()) / float(counts.sum())
    noise = NOISE * math.sqrt(expected * (1 - expected) / len(new))
    share = float(rows.mean()) - expected - noise
    if unseen.iloc[0] / len(new) - expected <= bug_share and share <= SCATTERED * bug_share:
        return None
    known = ", ".join(f'"{name}"' for name in counts.index[:3])
    more = f" and {len(counts) - 3} more" if len(counts) > 3 else ""
    names = ", ".join(f'"{name}"' for name in unseen.index[:3])
    detail = f"values such as {names} were never seen; the reference has {known}{more}"
    return _Problem(UNSEEN_CATEGORY, rows, detail)
