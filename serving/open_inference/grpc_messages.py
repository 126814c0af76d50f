"""Messages of the gRPC service -> tensors, and answers -> messages."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from homeostat.errors import InputError
from serving.open_inference.answers import FALLBACK, AnswerWriter, Said
from serving.open_inference.datatypes import BYTES, text_of
from serving.open_inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from serving.open_inference.raw import listed_values, number_type, raw_values
from serving.open_inference.reader import InferReader
from serving.open_inference.tensors import Tensor, Values, size_of
from serving.requests.forms import Piece
from serving.requests.parsing import Rows
from serving.requests.rows import shown

# Where a message has the values of a datatype; FP16 comes as bytes only.
CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}


class GrpcForm(msgspec.Struct):
    """See forms.Form."""

    writer: AnswerWriter
    id: str
    wanted: list[str]
    raw: bool

    def __call__(self, piece: Piece) -> bytes:
        message = ModelInferResponse(
            model_name=piece.model, model_version=piece.version, id=self.id
        )
        if piece.fallback:
            message.parameters[FALLBACK].bool_param = True
        for name in self.wanted:
            said = self.writer.said(name, piece)
            if said is None:
                continue
            output = message.outputs.add(name=name, datatype=said.datatype, shape=said.shape)
            if self.raw:
                message.raw_output_contents.append(self.writer.packed(said))
            else:
                getattr(output.contents, CONTENTS[said.datatype]).extend(_listed(said))
        data: bytes = message.SerializeToString()
        return data


def read_rows(request: Any, reader: InferReader) -> Rows:
    """Raises InputError, TooLarge. An answer holds bytes where the request did."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InputError(f"{len(raw)} raw_input_contents for {len(request.inputs)} inputs")
    tensors = []
    for place, each in enumerate(request.inputs):
        shape = list(each.shape)
        size = size_of(each.name, shape, reader.most_rows)
        if raw:
            data = raw[place]
            values = raw_values(each.name, each.datatype, size, data, 0, len(data))
        else:
            values = _contents(each, size)
        tensors.append(Tensor(each.name, each.datatype, shape, values))
    rows = reader.tensors.rows(tensors)
    writer = reader.writer
    writer.check_all((each.name, each.parameters) for each in request.outputs)
    wanted = [each.name for each in request.outputs] or writer.usual
    rows.form = GrpcForm(writer, request.id, wanted, bool(raw))
    return rows


def takes_long(request: Any) -> bool:
    """Numbers as bytes are used as they lie, however many; all else is read value by value."""
    return not request.raw_input_contents or any(each.datatype == BYTES for each in request.inputs)


def parse(body: bytes) -> Any:
    """Raises google.protobuf.message.DecodeError."""
    return ModelInferRequest.FromString(body)


def _contents(each: Any, size: int) -> Values:
    name, datatype = each.name, each.datatype
    dtype = None if datatype == BYTES else number_type(name, datatype)
    place = CONTENTS.get(datatype)
    found = getattr(each.contents, place) if place else ()
    if len(found) != size:
        raise InputError(
            f"{shown(name)}: its shape stands for {shown(size)} values of {datatype}, and "
            f"{len(found)} are in {place or 'raw_input_contents'}",
            field=name,
        )
    if dtype is None:
        return [text_of(value, name, row) for row, value in enumerate(found)]
    return listed_values(name, dtype, datatype, found, each.shape)


def _listed(said: Said) -> Any:
    if said.datatype == BYTES:
        return [value.encode("utf-8", "replace") for value in said.values]
    return np.asarray(said.values).ravel().tolist()
