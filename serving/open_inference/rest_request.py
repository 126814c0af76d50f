"""The body of an infer request over REST -> tensors, the outputs that are wanted, its id.

A body is JSON, or JSON followed by the tensors' bytes: then a header says how long the JSON is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec

from homeostat.errors import InputError
from serving.open_inference.datatypes import BYTES
from serving.open_inference.raw import listed_values, number_type, raw_values
from serving.open_inference.tensors import Tensor, Values, size_of
from serving.requests.problem import Refused
from serving.requests.rows import shown

BINARY_SIZE, BINARY_DATA, BINARY_ALL = "binary_data_size", "binary_data", "binary_data_output"
SHORT = 1024  # bytes of JSON that are remembered
_EMPTY: Mapping[str, Any] = {}


class Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: msgspec.Raw = msgspec.Raw()


class Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class Head(msgspec.Struct):
    """The JSON part."""

    inputs: list[Input]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[Output] | None = None


_decode = msgspec.json.Decoder(Head).decode
_decode_any = msgspec.json.Decoder().decode
_LISTS: dict[str, Any] = {
    kind: msgspec.json.Decoder(list[of])  # type: ignore[valid-type]
    for kind, of in {"f": float, "i": int, "u": int, "b": bool, "S": str}.items()
}


def read_head(
    body: bytes, length: int | None, most_rows: float = math.inf
) -> tuple[Head, list[Tensor]]:
    """`length`: of the JSON, where a header said so. Raises InputError, TooLarge, Refused (400)."""
    if length is not None and length > len(body):
        raise Refused(
            f"Inference-Header-Content-Length is {length}, and the body has {len(body)} bytes",
            status=400,
        )
    head = _decoded(body) if length is None else _decoded_often(body[:length])
    tensors, place = [], len(body) if length is None else length
    for each in head.inputs:
        size = size_of(each.name, each.shape, most_rows)
        given = (each.parameters or _EMPTY).get(BINARY_SIZE)
        if given is None:
            values = _from_json(each, size)
        else:
            if type(given) is not int or not 0 <= given <= len(body) - place:
                raise InputError(
                    f"{shown(each.name)}: {BINARY_SIZE} is {shown(given)}, and "
                    f"{len(body) - place} bytes are left after the JSON and the tensors before it",
                    field=each.name,
                )
            values = raw_values(each.name, each.datatype, size, body, place, given)
            place += given
        tensors.append(Tensor(each.name, each.datatype, each.shape, values))
    if place != len(body):
        raise InputError(f"{len(body) - place} bytes after the last tensor belong to none")
    return head, tensors


def takes_long(body: bytes, length: int | None) -> bool:
    """Of a large body. Numbers as bytes are used as they lie, however many; all else is read value
    by value."""
    if length is None or length > SHORT:
        return True
    head = body[:length]
    return BYTES.encode() in head or b"\\" in head  # which may stand for any letter


def _decoded(text: bytes) -> Head:
    try:
        return _decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        why = error if text else "there is no JSON"
        raise Refused(f"not an inference request: {why}", status=400) from None


@lru_cache(maxsize=256)
def _decoded_short(text: bytes) -> Head:
    return _decoded(text)


def _decoded_often(text: bytes) -> Head:
    """The JSON before a tensor's bytes is the same in most of a client's requests."""
    return _decoded_short(text) if len(text) <= SHORT else _decoded(text)


def wanted(head: Head, usual: Sequence[str]) -> list[tuple[str, bool]]:
    """The outputs, and which of them as bytes."""
    all_binary = (head.parameters or _EMPTY).get(BINARY_ALL, False) is True
    if not head.outputs:
        return [(name, all_binary) for name in usual]
    return [
        (each.name, (each.parameters or _EMPTY).get(BINARY_DATA, all_binary) is True)
        for each in head.outputs
    ]


def _from_json(each: Input, size: int) -> Values:
    if not len(each.data):
        raise InputError(f"{shown(each.name)} has no data", field=each.name)
    dtype = None if each.datatype == BYTES else number_type(each.name, each.datatype)
    decoder = _LISTS["S" if dtype is None else dtype.kind]
    try:
        values = decoder.decode(each.data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        values = _from_nested(each, decoder.type)
    if len(values) != size:
        raise InputError(
            f"{shown(each.name)} holds {len(values)} values, its shape stands for {shown(size)}",
            field=each.name,
        )
    if dtype is None:
        return list(values)
    return listed_values(each.name, dtype, each.datatype, values, each.shape)


def _from_nested(each: Input, expected: Any) -> list[Any]:
    """Lists in lists, as the shape has them."""
    try:
        level: Any = [_decode_any(each.data)]
        for length in each.shape:
            level = list(chain.from_iterable(_lists(level, length, each)))
        found: list[Any] = msgspec.convert(level, expected, strict=True)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InputError(
            f"the data of {shown(each.name)} is not {each.datatype}: {error}", field=each.name
        ) from None
    return found


def _lists(level: list[Any], length: int, each: Input) -> list[Any]:
    if not all(isinstance(part, list) and len(part) == length for part in level):
        raise InputError(
            f"the data of {shown(each.name)} is neither flat nor of its shape {each.shape[:8]}",
            field=each.name,
        )
    return level
