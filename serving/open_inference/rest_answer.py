"""What was predicted -> the body of an infer answer over REST."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from serving.open_inference.answers import FALLBACK, AnswerWriter, Said
from serving.open_inference.rest_request import BINARY_SIZE
from serving.requests.forms import Piece, Reply

_JSON = ((b"content-type", b"application/json"),)
_encode = msgspec.json.Encoder().encode


class Output(msgspec.Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] | None = None
    data: Any = None


class Answer(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[Output]
    id: str | None = None
    parameters: dict[str, bool] | None = None


class RestForm(msgspec.Struct):
    """See forms.Form."""

    writer: AnswerWriter
    id: str | None
    wanted: Sequence[tuple[str, bool]]  # the outputs, and which as bytes
    all_binary: bool

    def __call__(self, piece: Piece) -> Reply:
        if self.all_binary and not piece.fallback:
            return self._as_bytes(piece)
        outputs: list[Output] = []
        tail: list[bytes] = []
        for name, binary in self.wanted:
            said = self.writer.said(name, piece)
            if said is None:
                continue
            if binary:
                data = self.writer.packed(said)
                tail.append(data)
                size = {BINARY_SIZE: len(data)}
                outputs.append(Output(name, said.datatype, said.shape, size))
            else:
                outputs.append(Output(name, said.datatype, said.shape, None, _listed(said)))
        parameters = {FALLBACK: True} if piece.fallback else None
        head = _encode(Answer(piece.model, piece.version, outputs, self.id, parameters))
        return _binary(head, tail) if tail else Reply(head, _JSON)

    def _as_bytes(self, piece: Piece) -> Reply:
        """The usual case, whose JSON is mostly as it was the last time."""
        shapes: list[tuple[str, str, tuple[int, ...], int]] = []
        tail: list[bytes] = []
        for name, _ in self.wanted:
            said = self.writer.said(name, piece)
            if said is not None:
                data = self.writer.packed(said)
                tail.append(data)
                shapes.append((name, said.datatype, tuple(said.shape), len(data)))
        head = _head(piece.model, piece.version, tuple(shapes))
        if self.id is not None:
            head = b'%b,"id":%b}' % (head[:-1], _encode(self.id))
        return _binary(head, tail)


@lru_cache(maxsize=256)
def _head(
    model: str, version: str, shapes: tuple[tuple[str, str, tuple[int, ...], int], ...]
) -> bytes:
    outputs = [
        Output(name, datatype, list(shape), {BINARY_SIZE: size})
        for name, datatype, shape, size in shapes
    ]
    return _encode(Answer(model, version, outputs))


def _binary(head: bytes, tail: Sequence[bytes]) -> Reply:
    return Reply(
        b"".join((head, *tail)),
        (
            (b"content-type", b"application/octet-stream"),
            (b"inference-header-content-length", b"%d" % len(head)),
        ),
    )


def _listed(said: Said) -> Sequence[Any]:
    values = said.values
    if isinstance(values, np.ndarray):
        found: list[Any] = values.ravel().tolist()
        return found
    return values
