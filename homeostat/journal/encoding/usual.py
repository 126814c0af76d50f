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
    offsets: bytes  # of what was said, where all of it has one length
    shapes: tuple[tuple[int, int] | None, ...]  # of the matrices
    before: tuple[bytes, ...]  # each of the matrices; but a table's columns lie apart
    after: bytes


class Usual:
    """One version's tensors or tables of numbers, with what the model says. Thread-safe: what is
    kept is only ever added to or cleared."""

    def __init__(self, batch: PredictionBatch, layout: Layout, *, classes: bool) -> None:
        self.layout = layout
        self._classes = classes
        self._features, self._tensor = batch.features, batch.tensor
        self._widths = _widths(batch)
        self._sizes: dict[tuple[int, int, int], _Around] = {}

    def is_like(self, batch: PredictionBatch, layout: Layout) -> bool:
        return self.layout is layout and self._widths == _widths(batch)

    def message(self, batch: PredictionBatch) -> Encoded | None:
        """None for a batch that has to go the general way."""
        ids: Any = batch.ids
        said: Any = batch.predictions
        rows = len(ids)
        if batch.keys is not None or batch.tensor is not self._tensor or len(said) != rows:
            return None
        if batch.features is not self._features and batch.features != self._features:
            return None
        names, words = "".join(ids), "".join(said) if self._classes else ""
        around = self._sizes.get((rows, len(names), len(words)))
        if around is None or not (names.isascii() and words.isascii()) or _differ(ids):
            return None
        pieces: list[Any] = [
            around.start,
            names.encode(),
            around.after_ids,
            _TIME.pack(batch.time_us) * rows,
            _TIME.pack(batch.latency_us) * rows,
        ]
        if self._classes:
            offsets = parts.offsets(list(map(len, said))) if _differ(said) else around.offsets
            pieces += (offsets, words.encode())
        else:
            pieces.append(parts.float64s(said).body[0])
        return self._with_matrices(pieces, around, batch, rows)

    def _with_matrices(
        self, pieces: list[Any], around: _Around, batch: PredictionBatch, rows: int
    ) -> Encoded | None:
        matrices = []
        for matrix, shape in zip(_matrices(batch), around.shapes, strict=True):
            if matrix is not None and matrix.shape == shape:
                matrices.append(matrix)
            elif matrix is not shape:  # both are None where there is none
                return None
        for before, matrix in zip(around.before, matrices, strict=False):
            pieces += (before, parts.float32s(matrix))
        pieces.append(around.after)
        if not self._tensor:
            pieces += parts.columns(matrices[-1]).body
        return Encoded(self.layout, b"".join(pieces), rows)

    def learn(self, batch: PredictionBatch, encoded: Encoded) -> None:
        """The next batch of this size need not go the general way."""
        rows, ids, words = encoded.rows, "".join(batch.ids), b""
        if _differ(batch.ids) or not ids.isascii():
            return
        if self._classes:
            words = "".join(map(str, batch.predictions)).encode()
        if len(self._sizes) >= MOST_SIZES:
            self._sizes.clear()
        widths = [width for width in self._widths if width is not None]
        lists = widths if self._tensor else widths[:-1]
        pads = [padding(len(words)), *[padding(4 * rows * width) for width in lists]]
        offsets = [parts.same_offsets(width, rows) for width in lists]
        self._sizes[rows, len(ids), len(words)] = _Around(
            start=self.layout.head_of(encoded.data) + parts.same_offsets(len(ids) // rows, rows),
            after_ids=padding(len(ids)),
            offsets=parts.same_offsets(len(words) // rows, rows),
            shapes=tuple([None if width is None else (rows, width) for width in self._widths]),
            before=tuple([pad + each for pad, each in zip(pads, offsets, strict=False)]),
            after=pads[-1],
        )


def _differ(texts: Any) -> bool:
    """In their lengths."""
    return len(set(map(len, texts))) > 1


def is_usual(batch: PredictionBatch) -> bool:
    """Whether the next one may be like it."""
    whole = batch.matrix is not None and batch.keys is None
    return whole and all(each is None or each.ndim == 2 for each in _matrices(batch))


def _widths(batch: PredictionBatch) -> list[int | None]:
    return [None if matrix is None else matrix.shape[1] for matrix in _matrices(batch)]


def _matrices(batch: PredictionBatch) -> tuple[Any, Any, Any]:
    """In the order in which they are written; a table's columns come last."""
    return batch.probabilities, batch.embedding, batch.matrix
