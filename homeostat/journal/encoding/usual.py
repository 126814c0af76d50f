"""Batches like the one before, which nearly all are: only their values are put together.

Of a message of a few rows most is the same as in the last one with as many rows and as long texts:
it is kept as bytes, and the values are laid between them. What is unusual (keys, named columns, ids
of different lengths, letters beyond ASCII) goes the general way, as does the first of each size.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np

from homeostat.journal.encoding import parts
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.encoding.message import Encoded, Layout, padding

MOST_SIZES = 256  # kept: numbers of rows with lengths of their texts
_TIME = struct.Struct("<q")


class _Around(NamedTuple):
    """What lies around the values of all messages of one size."""

    start: bytes  # up to the ids
    after_ids: bytes
    after_said: bytes
    end: bytes


class Usual:
    """One version's tensors, with what the model says as text. Thread-safe: what is kept is only
    ever added to or cleared."""

    def __init__(self, batch: PredictionBatch, layout: Layout) -> None:
        self.layout = layout
        self._widths = [None if matrix is None else matrix.shape[1] for matrix in _matrices(batch)]
        self._width = sum([width for width in self._widths if width is not None])
        self._sizes: dict[tuple[int, int, int], _Around] = {}

    def message(self, batch: PredictionBatch) -> Encoded | None:
        """None for a batch that has to go the general way."""
        if batch.keys is not None or not batch.tensor:
            return None
        ids: Any = batch.ids
        said: Any = batch.predictions
        rows, matrices = len(ids), []
        for matrix, width in zip(_matrices(batch), self._widths, strict=True):
            if matrix is not None and matrix.shape == (rows, width):
                matrices.append(matrix)
            elif matrix is not width:  # both are None where there is none
                return None
        names, answers, lengths = "".join(ids), "".join(said), list(map(len, said))
        around = self._sizes.get((rows, len(names), len(answers)))
        uniform = len(lengths) == rows and len(set(map(len, ids))) == 1
        if around is None or not (uniform and names.isascii() and answers.isascii()):
            return None
        vectors: Any = np.concatenate(matrices, axis=1, dtype=np.float32, casting="same_kind")
        data = b"".join(
            (
                around.start,
                names.encode(),
                around.after_ids,
                _TIME.pack(batch.time_us) * rows,
                _TIME.pack(batch.latency_us) * rows,
                parts.offsets(lengths),
                answers.encode(),
                around.after_said,
                vectors,
                around.end,
            )
        )
        return Encoded(self.layout, data, rows)

    def learn(self, batch: PredictionBatch, encoded: Encoded) -> None:
        """The next batch of this size need not go the general way."""
        answers: Any = batch.predictions
        rows, ids, said = encoded.rows, "".join(batch.ids), "".join(answers)
        if len(set(map(len, batch.ids))) > 1 or not (ids.isascii() and said.isascii()):
            return
        if len(self._sizes) >= MOST_SIZES:
            self._sizes.clear()
        self._sizes[rows, len(ids), len(said)] = _Around(
            start=self.layout.head_of(encoded.data) + parts.same_offsets(len(ids) // rows, rows),
            after_ids=padding(len(ids)),
            after_said=padding(len(said)) + parts.same_offsets(self._width, rows),
            end=padding(4 * rows * self._width),
        )


def is_usual(batch: PredictionBatch) -> bool:
    """Whether the next one may be like it."""
    whole = batch.tensor and batch.matrix is not None and batch.keys is None
    return whole and all(each is None or each.ndim == 2 for each in _matrices(batch))


def _matrices(batch: PredictionBatch) -> tuple[Any, Any, Any]:
    """In the order in which a row's vectors lie in their one list."""
    return batch.probabilities, batch.embedding, batch.matrix
