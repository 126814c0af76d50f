"""The rows of several requests as one batch, and a batch in parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from homeostat.model_runtime.contract import Batch
from serving.requests.parsing import Rows


def join(requests: Sequence[Rows]) -> Rows:
    """The rows of several requests of one version, one after the other."""
    count = sum([request.count for request in requests])
    first, keys = requests[0], _keys(requests)
    if first.matrix is not None:
        matrix = np.concatenate([request.matrix for request in requests])
        return Rows(count, None, matrix, None, keys, None, first.role)
    columns: Mapping[str, Sequence[Any]] = {
        name: [value for request in requests for value in (request.columns or {})[name]]
        for name in first.columns or {}
    }
    return Rows(count, None, None, columns, keys, None, first.role)


def part_of(rows: Rows, start: int, end: int) -> Batch:
    if rows.matrix is not None:
        return Batch(end - start, rows.matrix[start:end])
    columns = {name: values[start:end] for name, values in (rows.columns or {}).items()}
    return Batch(end - start, None, columns)


def ids_of(requests: Sequence[Rows], count: int, new: Callable[[int], list[str]]) -> list[str]:
    """The callers' own ids, new ones for the rest."""
    if [request.ids for request in requests].count(None) == len(requests):
        return new(count)
    ids: list[str] = []
    for request in requests:
        ids += request.ids if request.ids is not None else new(request.count)
    return ids


def _keys(requests: Sequence[Rows]) -> list[str | None] | None:
    """One a row where any request has keys; usually none has."""
    if [request.keys for request in requests].count(None) == len(requests):
        return None
    keys: list[str | None] = []
    for request in requests:
        keys += request.keys if request.keys is not None else [None] * request.count
    return keys


def joined(parts: Sequence[Any]) -> Any:
    return None if any(part is None for part in parts) else np.concatenate(parts)
