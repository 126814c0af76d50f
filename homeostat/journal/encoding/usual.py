"""Batches like the one before, which nearly all are: only their values are put together.

Of a message of a few rows most is the same as in the last one with as many rows and as long texts:
it is kept as bytes, and the values are laid between them. What is unusual (keys, columns that are
not all numbers, ids of different lengths, letters beyond ASCII) goes the general way, as does the
first of each size.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from homeostat.journal.encoding import parts
from homeostat.journal.encoding.batch import PredictionBatch
from homeostat.journal.encoding.message import Encoded, Layout, padding

MOST_SIZES = 256  # kept: numbers of rows with lengths of their texts
_TIME = struct.Struct("<q")


class _Around(NamedTuple):
    """What lies around the values of all messages of one size."""

    start: bytes  # up to the ids
    after_ids: bytes
    before: tuple[bytes, ...]  # each of the vectors
    after: bytes


class Usual:
    """One version's tensors or tables of numbers, with what the model says. Thread-safe: what is
    kept is only ever added to or cleared."""

    def __init__(self, batch: PredictionBatch, layout: Layout, *, classes: bool) -> None:
        self.layout = layout
        self._classes = classes
        self._features, self._tensor = batch.features, batch.tensor
        self._widths = [None if matrix is None else matrix.shape[1] for matrix in _matrices(batch)]
        in_lists = self._widths if batch.tensor else self._widths[:2]
        self._lists = [width for width in in_lists if width is not None]
        self._sizes: dict[tuple[int, int, int], _Around] = {}

    def message(self, batch: PredictionBatch) -> Encoded | None:
        """None for a batch that has to go the general way."""
        if batch.keys is not None or batch.tensor is not self._tensor:
            return None
        if batch.features is not self._features and batch.features != self._features:
            return None
        ids: Any = batch.ids
        rows, matrices = len(ids), []
        for matrix, width in zip(_matrices(batch), self._widths, strict=True):
            if matrix is not None and matrix.shape == (rows, width):
                matrices.append(matrix)
            elif matrix is not width:  # both are None where there is none
                return None
        names, said = "".join(ids), self._said(batch.predictions, rows)
        if said is None or len(set(map(len, ids))) > 1 or not names.isascii():
            return None
        around = self._sizes.get((rows, len(names), len(said[1])))
        if around is None:
            return None
        table = b"" if self._tensor else parts.columns(matrices.pop()).body[0]
        pieces = [
            around.start,
            names.encode(),
            around.after_ids,
            _TIME.pack(batch.time_us) * rows,
            _TIME.pack(batch.latency_us) * rows,
            *said,
        ]
        for before, matrix in zip(around.before, matrices, strict=True):
            pieces.append(before)
            pieces.append(parts.float32s(matrix))
        pieces.append(around.after)
        pieces.append(table)
        return Encoded(self.layout, b"".join(pieces), rows)

    def learn(self, batch: PredictionBatch, encoded: Encoded) -> None:
        """The next batch of this size need not go the general way."""
        rows, ids = encoded.rows, "".join(batch.ids)
        said = self._said(batch.predictions, rows)
        if said is None or len(set(map(len, batch.ids))) > 1 or not ids.isascii():
            return
        if len(self._sizes) >= MOST_SIZES:
            self._sizes.clear()
        pads = [padding(len(said[1])), *[padding(4 * rows * width) for width in self._lists]]
        offsets = [parts.same_offsets(width, rows) for width in self._lists]
        self._sizes[rows, len(ids), len(said[1])] = _Around(
            start=self.layout.head_of(encoded.data) + parts.same_offsets(len(ids) // rows, rows),
            after_ids=padding(len(ids)),
            before=tuple([pad + each for pad, each in zip(pads, offsets, strict=False)]),
            after=pads[-1],
        )

    def _said(self, predictions: Any, rows: int) -> tuple[bytes, Any] | None:
        """Where each begins, and all of them."""
        if len(predictions) != rows:
            return None
        if not self._classes:
            return b"", parts.float64s(predictions).body[0]
        joined = "".join(predictions)
        if not joined.isascii():
            return None
        return parts.offsets(list(map(len, predictions))), joined.encode()


def is_usual(batch: PredictionBatch) -> bool:
    """Whether the next one may be like it."""
    whole = batch.matrix is not None and batch.keys is None
    return whole and all(each is None or each.ndim == 2 for each in _matrices(batch))


def _matrices(batch: PredictionBatch) -> tuple[Any, Any, Any]:
    """In the order in which they are written; a table's columns come last."""
    return batch.probabilities, batch.embedding, batch.matrix
