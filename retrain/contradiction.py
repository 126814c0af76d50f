"""Which old rows do newer labels contradict? Asked only under concept drift.

A row is contradicted when most rows like it used to carry its label and few do now, or when the
meaning of its whole class has changed; a number, when its newer neighbours have moved away from
it. "Like it" means the nearest rows by standardised features. Old rows are thinned to as many as
there are newer ones before they are asked, so that both answers come from equally dense
neighbourhoods and chance alone seldom makes them differ; and where the newer neighbours lie
farther away than the old ones, the newer labels say nothing about the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from homeostat.records import Task

LEAST_NEWER = 30  # fewer newer rows contradict nothing
OLD_SAMPLE = 20_000  # old rows asked at most; more would only take longer
NEAR = 1.5  # times the distance of the old neighbours
WAS_SHARE, IS_SHARE = 0.7, 0.3  # of neighbours that carry the row's label, then and now
FALL = 0.35  # of the share of a class that still carries its label, when it was renamed
LEAST_CALLED = 8  # newer rows that old ones call by a class, to judge the whole class

Matrix = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Rows as a matrix without gaps, see `encode`, and their labels (texts, or numbers)."""

    x: Matrix
    y: NDArray[Any]

    def __len__(self) -> int:
        return len(self.y)


def contradicted(
    rows: Labelled, newer: Labelled, old: Labelled, task: Task, rng: np.random.Generator
) -> Bools:
    """For each row whether newer labels contradict it. Rows may be among the old ones."""
    if len(newer) < LEAST_NEWER or len(old) < LEAST_NEWER or not len(rows):
        return np.zeros(len(rows), bool)
    whole, old = old, _thinned(old, min(len(newer), OLD_SAMPLE), rng)
    k = int(np.clip(np.sqrt(len(newer)) / 2, 5, 15))
    then, then_distance = _neighbours(rows.x, old, k)
    now, now_distance = _neighbours(rows.x, newer, k)
    near = now_distance <= NEAR * np.maximum(then_distance, np.median(then_distance))
    whole = _thinned(whole, OLD_SAMPLE, rng)
    own, own_distance = _neighbours(whole.x, whole, k)
    if task is Task.REGRESSION:
        return near & _moved(rows.y, then, now, _sigma(whole, own))
    was, still = _share(then, rows.y), _share(now, rows.y)
    changed = near & (was >= WAS_SHARE) & (still <= IS_SHARE)
    changed &= (now == _majority(now)[:, None]).mean(axis=1) >= WAS_SHARE
    before, distance = _neighbours(newer.x, whole, k)
    alike = distance <= NEAR * np.quantile(own_distance, 0.95)
    renamed = list(_renamed(newer.y[alike], before[alike], whole.y, own))
    changed |= np.isin(rows.y, renamed) & ~(near & (still >= WAS_SHARE))
    return np.asarray(changed)


def onset(errors: NDArray[np.float64], least: int = LEAST_NEWER) -> int:
    """Where in a series of errors in time order they rose: the split with the clearest step.

    0 when there is no rise to be seen: then every row is taken for newer. The window of a check
    mixes rows from before and after the change, and only the latter know the new meaning.
    """
    n = len(errors)
    if n < 2 * least:
        return 0
    before = np.arange(least, n - least + 1)
    total = np.cumsum(errors)
    mean_before = total[before - 1] / before
    mean_after = (total[-1] - total[before - 1]) / (n - before)
    step = mean_after - mean_before
    gain = np.where(step > 0, before * (n - before) / n * step**2, 0.0)
    best = int(gain.argmax())
    # Without a change the clearest step of noise reaches some 10 variances (a scan statistic).
    return int(before[best]) if gain[best] > 12 * errors.var() else 0


def encode(tables: list[dict[str, NDArray[Any]]], features: tuple[str, ...]) -> list[Matrix]:
    """Tables as matrices in one common scale: numbers standardised, categories one column each.

    A missing number is the mean; a category weighs as much as a number that differs by one sigma.
    """
    parts: list[list[Matrix]] = [[] for _ in tables]
    for name in features:
        columns = [table[name] for table in tables]
        encoded = _numbers(columns) if all(c.dtype.kind in "fiub" for c in columns) else None
        for part, column in zip(parts, encoded or _categories(columns), strict=True):
            part.append(column)
    return [np.asarray(np.hstack(part), np.float64) for part in parts]


def _numbers(columns: list[NDArray[Any]]) -> list[Matrix]:
    pooled = np.concatenate([column.astype(np.float64) for column in columns])
    pooled = pooled[np.isfinite(pooled)]
    mean = pooled.mean() if len(pooled) else 0.0
    sigma = (pooled.std() if len(pooled) else 0.0) or 1.0
    scaled = [(column.astype(np.float64) - mean) / sigma for column in columns]
    return [np.nan_to_num(column, nan=0.0, posinf=10.0, neginf=-10.0)[:, None] for column in scaled]


def _categories(columns: list[NDArray[Any]]) -> list[Matrix]:
    texts = [column.astype(str) for column in columns]
    names, counts = np.unique(np.concatenate(texts), return_counts=True)
    names = names[np.argsort(-counts, kind="stable")][:20]
    return [(text[:, None] == names[None, :]) / np.sqrt(2.0) for text in texts]


def _thinned(old: Labelled, count: int, rng: np.random.Generator) -> Labelled:
    if len(old) <= count:
        return old
    chosen = rng.choice(len(old), count, replace=False)
    return Labelled(x=old.x[chosen], y=old.y[chosen])


def _neighbours(x: Matrix, among: Labelled, k: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Labels of each row's k nearest others, and their median distance.

    A neighbour at distance zero is the row itself, or its double: the first such is passed over.
    """
    k = min(k, len(among) - 1)
    distance, index = NearestNeighbors(n_neighbors=k + 1).fit(among.x).kneighbors(x)
    first = (distance[:, 0] == 0).astype(int)[:, None] + np.arange(k)[None, :]
    index = np.take_along_axis(index, first, axis=1)
    return among.y[index], np.median(np.take_along_axis(distance, first, axis=1), axis=1)


def _share(labels: NDArray[Any], of: NDArray[Any]) -> Matrix:
    """The share of each row's neighbours that carry the row's own label."""
    return np.asarray((labels == of[:, None]).mean(axis=1), np.float64)


def _sigma(old: Labelled, own: NDArray[Any]) -> float:
    """How far a number usually lies from the middle of its old neighbours."""
    residual = _numbers_of(old.y) - np.median(_numbers_of(own), axis=1)
    return 1.4826 * float(np.median(np.abs(residual - np.median(residual)))) or 1e-12


def _moved(y: NDArray[Any], then: NDArray[Any], now: NDArray[Any], sigma: float) -> Bools:
    """A number that its old neighbours bear out, and from which the newer ones moved away."""
    y, was, still = _numbers_of(y), *(np.median(_numbers_of(v), axis=1) for v in (then, now))
    borne_out, moved = np.abs(y - was) < 2 * sigma, np.abs(still - was) > 1.5 * sigma
    return np.asarray(borne_out & moved & (np.abs(y - still) > 2 * sigma))


def _numbers_of(labels: NDArray[Any]) -> Matrix:
    return np.asarray(labels, dtype=np.float64)


def _renamed(
    newer: NDArray[Any], then: NDArray[Any], old: NDArray[Any], own: NDArray[Any]
) -> set[Any]:
    """Classes whose whole meaning changed: what old rows call so carries another label now.

    Seen from a class at once, a change is plain where single neighbourhoods leave doubt.
    """
    renamed: set[Any] = set()
    if not len(newer):
        return renamed
    called, called_own = _majority(then), _majority(own)
    for label in np.unique(old):
        among, among_own = newer[called == label], old[called_own == label]
        if len(among) < LEAST_CALLED or len(among_own) < LEAST_CALLED:
            continue
        _, counts = np.unique(among[among != label], return_counts=True)
        still, used = (among == label).mean(), (among_own == label).mean()
        other = counts.max() / len(among) if len(counts) else 0.0
        if used - still >= FALL and still < 0.4 and other >= 0.5:
            renamed.add(label)
    return renamed


def _majority(labels: NDArray[Any]) -> NDArray[Any]:
    values, codes = np.unique(labels, return_inverse=True)
    codes = codes.reshape(labels.shape)
    counts = np.stack([(codes == code).sum(axis=1) for code in range(len(values))], axis=1)
    return np.asarray(values[counts.argmax(axis=1)])
