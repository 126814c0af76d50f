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
_MATRICES = ("probabilities", "embedding", "matrix")  # in the order in which they are written


class _Around(NamedTuple):
    """What lies around the values of all messages of one size."""

    start: bytes  # up to the ids
    after_ids: bytes
    offsets: bytes  # of what was said, where all of it has one length
    vectors: tuple[tuple[str, bytes], ...]  # the name of each, and what lies before it
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
        if not self._fits(batch, rows):
            return None
        names, words = "".join(ids), "".join(said) if self._classes else ""
        around = self._sizes.get((rows, len(names), len(words)))
        if around is None or not (names.isascii() and words.isascii()) or _differ(ids, rows):
            return None
        pieces: list[Any] = [
            around.start,
            names.encode(),
            around.after_ids,
            _TIME.pack(batch.time_us) * rows,
            _TIME.pack(batch.latency_us) * rows,
        ]
        if self._classes:
            same = not _differ(said, rows)
            pieces.append(around.offsets if same else parts.offsets(list(map(len, said))))
            pieces.append(words.encode())
        else:
            pieces.append(parts.float64s(said).body[0])
        for name, before in around.vectors:
            pieces.append(before)
            pieces.append(parts.float32s(getattr(batch, name)))
        pieces.append(around.after)
        if not self._tensor and batch.matrix is not None:
            pieces += parts.columns(batch.matrix).body
        return Encoded(self.layout, b"".join(pieces), rows)

    def _fits(self, batch: PredictionBatch, rows: int) -> bool:
        if batch.keys is not None or batch.tensor is not self._tensor:
            return False
        if batch.features is not self._features and batch.features != self._features:
            return False
        for name, width in self._widths:
            matrix = getattr(batch, name)
            if matrix is None or width is None:
                if matrix is not width:  # both are None where there is none
                    return False
            elif matrix.shape != (rows, width):
                return False
        return len(batch.predictions) == rows

    def learn(self, batch: PredictionBatch, encoded: Encoded) -> None:
        """The next batch of this size need not go the general way."""
        rows, ids, words = encoded.rows, "".join(batch.ids), b""
        if _differ(batch.ids, rows) or not ids.isascii():
            return
        if self._classes:
            words = "".join(map(str, batch.predictions)).encode(errors="replace")
        if len(self._sizes) >= MOST_SIZES:
            self._sizes.clear()
        lists = [(name, width) for name, width in self._widths if width is not None]
        if not self._tensor:
            lists.pop()  # a table's columns lie apart from the vectors, behind them
        pads = [padding(len(words)), *[padding(4 * rows * width) for _, width in lists]]
        offsets = [parts.same_offsets(width, rows) for _, width in lists]
        self._sizes[rows, len(ids), len(words)] = _Around(
            start=self.layout.head_of(encoded.data) + parts.same_offsets(len(ids) // rows, rows),
            after_ids=padding(len(ids)),
            offsets=parts.same_offsets(len(words) // rows, rows),
            vectors=tuple(
                [
                    (name, pad + offset)
                    for (name, _), pad, offset in zip(lists, pads, offsets, strict=False)
                ]
            ),
            after=pads[-1],
        )


def _differ(texts: Any, rows: int) -> bool:
    """In their lengths."""
    return rows > 1 and len(set(map(len, texts))) > 1


def is_usual(batch: PredictionBatch) -> bool:
    """Whether the next one may be like it."""
    whole = batch.matrix is not None and batch.keys is None
    matrices = [getattr(batch, name) for name in _MATRICES]
    return whole and all(each is None or each.ndim == 2 for each in matrices)


def _widths(batch: PredictionBatch) -> list[tuple[str, int | None]]:
    found = [(name, getattr(batch, name)) for name in _MATRICES]
    return [(name, None if each is None else each.shape[1]) for name, each in found]
