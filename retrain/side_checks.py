"""The gate's other lines: slices, calibration, churn, latency, size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat.records import Task
from homeostat.settings_of_the_loop import GateSettings
from retrain.gate_lines import FAIL, PASS, Line
from retrain.paired import (
    LEVEL,
    Answers,
    Bools,
    Loss,
    Paired,
    calibration_error,
    compare,
    errors,
    holm,
)

SLICE_ROWS = 30  # a smaller slice says nothing
SLICE_VALUES = 50  # the most frequent ones of a column
BINS = 4  # of a column of many numbers


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What it takes to run the two; seconds are of the same batch, None where not measured."""

    candidate_seconds: float | None = None
    champion_seconds: float | None = None
    size: int | None = None  # bytes of the candidate's files


@dataclass(frozen=True, kw_only=True)
class _Slice:
    name: str
    loss: Loss
    margin: float


def slices(sides: dict[str, Paired], task: Task, settings: GateSettings) -> list[Line]:
    """No slice may be worse by more than the margin, surely so (Holm over all of them)."""
    if not settings.slices:
        return []
    found = [
        part
        for where, rows in sides.items()
        for column in settings.slices
        for part in _slices_of(where, column, rows, task, settings.slice_margin)
    ]
    if not found:
        columns = ", ".join(settings.slices)
        detail = f"no slice of {columns} has {SLICE_ROWS} rows on either side"
        return [Line(name="slices", outcome=None, detail=detail)]
    surely = holm([part.loss.p_worse for part in found], LEVEL)
    worse = [
        part
        for part, sure in zip(found, surely, strict=True)
        if sure and part.loss.mean > part.margin
    ]
    worst = max(worse or found, key=lambda part: part.loss.mean - part.margin)
    detail = f"{len(worse)} of {len(found)} slices are worse" if worse else "no slice is worse"
    detail += f"; {worst.name}: error {worst.loss.mean:+.4f} on {worst.loss.rows:,} rows"
    return [
        Line(
            name="slices",
            outcome=FAIL if worse else PASS,
            detail=detail,
            value=worst.loss.mean,
            limit=worst.margin,
        )
    ]


def calibration(sides: dict[str, Paired], task: Task, settings: GateSettings) -> list[Line]:
    """Stated confidence may not have drifted away from the share of right answers."""
    lines = []
    for where, rows in sides.items():
        if task is not Task.CLASSIFICATION or rows.champion is None:
            continue
        if int(rows.mask.sum()) < settings.min_rows:
            continue
        mine, theirs = _calibration(rows, rows.candidate), _calibration(rows, rows.champion)
        if mine is None or theirs is None:
            continue
        lines.append(
            Line(
                name=f"calibration ({where})",
                outcome=PASS if mine - theirs <= settings.calibration_margin else FAIL,
                detail=f"calibration error {mine:.3f} against {theirs:.3f}",
                value=mine - theirs,
                limit=settings.calibration_margin,
            )
        )
    return lines


def churn(sides: dict[str, Paired], task: Task) -> list[Line]:
    """How many answers change: reported, because whoever reads the answers will notice."""
    lines = []
    for where, rows in sides.items():
        if rows.champion is None or not len(rows.labels):
            continue
        mine, theirs = rows.candidate.predictions, rows.champion.predictions
        if task is Task.CLASSIFICATION:
            share = float(np.mean(mine != theirs))
            detail = f"{share:.1%} of the answers change"
        else:
            share = float(np.mean(np.abs(np.asarray(mine, float) - np.asarray(theirs, float))))
            detail = f"answers change by {share:.5g} on average"
        lines.append(Line(name=f"churn ({where})", outcome=None, detail=detail, value=share))
    return lines


def latency(cost: Cost, settings: GateSettings) -> list[Line]:
    if not cost.candidate_seconds or not cost.champion_seconds:
        return []
    ratio = cost.candidate_seconds / cost.champion_seconds
    mine, theirs = cost.candidate_seconds * 1000, cost.champion_seconds * 1000
    return [
        Line(
            name="latency",
            outcome=PASS if ratio <= settings.latency_ratio else FAIL,
            detail=f"{mine:.2f} ms a batch against {theirs:.2f} ms ({ratio:.2f} times)",
            value=ratio,
            limit=settings.latency_ratio,
        )
    ]


def size(cost: Cost, settings: GateSettings) -> list[Line]:
    if cost.size is None:
        return []
    return [
        Line(
            name="size",
            outcome=PASS if cost.size <= settings.max_size else FAIL,
            detail=f"{cost.size / 1e6:.1f} MB of files, {settings.max_size / 1e6:.0f} MB allowed",
            value=float(cost.size),
            limit=float(settings.max_size),
        )
    ]


def _slices_of(
    where: str, column: str, rows: Paired, task: Task, margin: float
) -> Iterator[_Slice]:
    if rows.champion is None or column not in rows.slices:
        return
    candidate = errors(rows.candidate, rows.labels, task)
    champion = errors(rows.champion, rows.labels, task)
    for name, inside in _groups(column, rows.slices[column]):
        chosen = inside & rows.mask
        if chosen.sum() < SLICE_ROWS:
            continue
        allowed = margin
        if task is Task.REGRESSION:
            allowed *= float(champion[chosen].mean())
        loss = compare(candidate[chosen], champion[chosen], task, in_time_order=rows.in_time_order)
        yield _Slice(name=f"{name} ({where})", loss=loss, margin=allowed)


def _groups(column: str, values: NDArray[Any]) -> Iterator[tuple[str, Bools]]:
    """A column's most frequent values, or ranges where it holds many numbers."""
    if values.dtype.kind in "fiu" and len(np.unique(values)) > SLICE_VALUES:
        edges = np.unique(np.nanquantile(values, np.linspace(0, 1, BINS + 1)))
        for low, high, last in zip(edges, edges[1:], edges[1:] == edges[-1], strict=False):
            inside = (values >= low) & ((values <= high) if last else (values < high))
            yield f"{column} from {low:g} to {high:g}", inside
        return
    texts = values.astype(str)
    names, counts = np.unique(texts, return_counts=True)
    for name in names[np.argsort(-counts, kind="stable")][:SLICE_VALUES]:
        yield f"{column} = {name}", texts == name


def _calibration(rows: Paired, answers: Answers) -> float | None:
    if answers.probabilities is None:
        return None
    mask = rows.mask
    confidence = np.asarray(answers.probabilities, np.float64)[mask].max(axis=1)
    return calibration_error((answers.predictions == rows.labels)[mask], confidence)
