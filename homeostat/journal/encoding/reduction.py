"""A batch as the settings let it be written down: pure functions from batch to batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.encoding.descriptors import describe
from homeostat.journal.encoding.privacy import hashed
from homeostat.journal.encoding.recording import KEY, Recording
from homeostat.journal.encoding.sampling import shares


def sampled(batch: PredictionBatch, rate: float) -> PredictionBatch:
    """The rows whose id is below the rate."""
    chosen = np.flatnonzero(shares(batch.ids) < rate)
    if len(chosen) == len(batch.ids):
        return batch
    return replace(
        batch,
        ids=_taken(batch.ids, chosen),
        matrix=_rows(batch.matrix, chosen),
        columns=None
        if batch.columns is None
        else {name: _taken(values, chosen) for name, values in batch.columns.items()},
        keys=None if batch.keys is None else _taken(batch.keys, chosen),
        predictions=_taken(batch.predictions, chosen),
        probabilities=_rows(batch.probabilities, chosen),
        embedding=_rows(batch.embedding, chosen),
    )


def veiled(batch: PredictionBatch, recording: Recording) -> PredictionBatch:
    """Without the columns, or keys, that are redacted; with hashes in place of those that are
    hashed.

    A tensor's elements keep their places: redacted or hashed ones become NaN.
    """
    if batch.keys is not None and KEY in recording.redact:
        batch = replace(batch, keys=None)
    if batch.keys is not None and KEY in recording.hash:
        batch = replace(batch, keys=hashed(batch.keys, recording.hash_key))
    hidden = (recording.redact | recording.hash) & set(batch.features)
    if not hidden:
        return batch
    if batch.matrix is not None and batch.tensor:
        matrix = batch.matrix.astype(np.float32)
        matrix[:, [at for at, name in enumerate(batch.features) if name in hidden]] = np.nan
        return replace(batch, matrix=matrix)
    return _without(batch, recording)


def described(batch: PredictionBatch) -> NDArray[np.float32]:
    """The descriptors of its rows, of what of them may be known."""
    rows = len(batch.ids)
    if batch.matrix is not None:
        return describe(batch.matrix)
    given = batch.columns or {}
    texts = [values for name, values in given.items() if _is_text(batch, name, values)]
    others = [values for name, values in given.items() if not _is_text(batch, name, values)]
    missing = np.array([[value is None for value in values] for values in texts], dtype=bool)
    return describe(
        np.array(others, dtype=np.float64).reshape(len(others), rows).T,
        missing.reshape(len(texts), rows).sum(axis=0),
        len(texts),
    )


def _without(batch: PredictionBatch, recording: Recording) -> PredictionBatch:
    names = tuple(name for name in batch.features if name not in recording.redact)
    veil = recording.hash & set(names)
    if batch.matrix is not None and not veil:
        kept = [at for at, name in enumerate(batch.features) if name not in recording.redact]
        return replace(batch, features=names, matrix=batch.matrix[:, kept])
    given = _columns(batch)
    categories = batch.categories
    if categories is None and batch.matrix is not None:
        categories = frozenset()
    return replace(
        batch,
        features=names,
        matrix=None,
        columns={
            name: hashed(given[name], recording.hash_key) if name in veil else given[name]
            for name in names
            if name in given
        },
        categories=None if categories is None else categories | veil,
    )


def _columns(batch: PredictionBatch) -> Mapping[str, Sequence[Any]]:
    if batch.matrix is None:
        return batch.columns or {}
    return dict(zip(batch.features, batch.matrix.T.tolist(), strict=True))


def _is_text(batch: PredictionBatch, name: str, values: Sequence[Any]) -> bool:
    if batch.categories is not None:
        return name in batch.categories
    return any(isinstance(value, str) for value in values)


def _taken(values: Sequence[Any], chosen: NDArray[np.intp]) -> list[Any]:
    return [values[row] for row in chosen]


def _rows(matrix: NDArray[Any] | None, chosen: NDArray[np.intp]) -> NDArray[Any] | None:
    return None if matrix is None else matrix[chosen]
