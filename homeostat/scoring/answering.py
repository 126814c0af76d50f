"""Rows -> the model -> answers; what no answer comes of is told row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from homeostat.errors import ModelError
from homeostat.model_runtime.contract import Batch, LoadedModel, Outputs
from homeostat.scoring.signature import part_of

MOST_REFUSED = 100  # rows of one batch that the model itself refuses: past it, it is the model


@dataclass(frozen=True)
class Answered:
    places: Any  # of the rows with an answer, in the batch
    outputs: Outputs | None  # None where there is none
    refused: tuple[tuple[int, str], ...]  # place and what the model said


def answered(model: LoadedModel, batch: Batch) -> Answered:
    """Raises ModelError where the model fails, and not only on some rows."""
    if batch.rows == 0:
        return Answered(np.empty(0, np.int64), None, ())
    refused: list[tuple[int, str]] = []
    pieces = _pieces(model, batch, 0, refused)
    places = np.concatenate([place for place, _ in pieces]) if pieces else np.empty(0, np.int64)
    if not len(places):
        if batch.rows > 1 or not refused:
            why = refused[0][1] if refused else "no answer"
            raise ModelError(f"the model answers none of {batch.rows} rows: {why}")
        return Answered(places, None, tuple(refused))
    outputs = joined([outputs for _, outputs in pieces])
    finite = _finite(outputs)
    if not finite.all():
        lost = places[~finite].tolist()
        refused += [(place, "the answer is no finite number") for place in lost]
        places, outputs = places[finite], _chosen(outputs, np.flatnonzero(finite))
    return Answered(places, outputs if len(places) else None, tuple(sorted(refused)))


def _pieces(
    model: LoadedModel, batch: Batch, start: int, refused: list[tuple[int, str]]
) -> list[tuple[Any, Outputs]]:
    """By halves where the model fails, until the rows that it fails on are found."""
    try:
        outputs = model.predict(batch)
    except ModelError as error:
        if batch.rows == 1:
            refused.append((start, str(error)))
            if len(refused) > MOST_REFUSED:
                raise ModelError(f"{error}; so it was with {MOST_REFUSED} rows before") from error
            return []
        half = batch.rows // 2
        return [
            *_pieces(model, part_of(batch, 0, half), start, refused),
            *_pieces(model, part_of(batch, half, batch.rows), start + half, refused),
        ]
    return [(np.arange(start, start + batch.rows), outputs)]


def _finite(outputs: Outputs) -> Any:
    rows = len(outputs.predictions)
    ok = np.ones(rows, bool)
    if outputs.probabilities is not None:
        ok &= np.isfinite(outputs.probabilities).all(axis=1)
    if rows and isinstance(outputs.predictions[0], float):
        ok &= np.isfinite(outputs.predictions)
    return ok


def joined(parts: Sequence[Outputs]) -> Outputs:
    if len(parts) == 1:
        return parts[0]
    said: list[Any] = [each for part in parts for each in part.predictions]
    return Outputs(
        said,
        _concatenated([part.probabilities for part in parts]),
        _concatenated([part.embedding for part in parts]),
    )


def _concatenated(parts: Sequence[Any]) -> Any:
    return None if any(part is None for part in parts) else np.concatenate(parts)


def _chosen(outputs: Outputs, places: Any) -> Outputs:
    said: list[Any] = [outputs.predictions[place] for place in places.tolist()]
    shares, embedding = outputs.probabilities, outputs.embedding
    return Outputs(
        said,
        None if shares is None else shares[places],
        None if embedding is None else embedding[places],
    )
