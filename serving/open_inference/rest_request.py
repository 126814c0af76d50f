"""The body of an infer request over REST -> tensors, the outputs that are wanted, its id.

A body is JSON, or JSON followed by the tensors' bytes: then a header says how long the JSON is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from homeostat.errors import InputError
from serving.open_inference.datatypes import BYTES, NUMBERS, unpacked
from serving.open_inference.tensors import Tensor, Values, size_of
from serving.problem import Refused
from serving.rows import shown

BINARY_SIZE, BINARY_DATA, BINARY_ALL = "binary_data_size", "binary_data", "binary_data_output"
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


def read_head(body: bytes, length: int | None) -> tuple[Head, list[Tensor]]:
    """`length`: of the JSON, where a header said so. Raises InputError, Refused (400)."""
    if length is not None and length > len(body):
        raise Refused(
            f"Inference-Header-Content-Length is {length}, and the body has {len(body)} bytes",
            status=400,
        )
    try:
        head = _decode(body if length is None else memoryview(body)[:length])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Refused(f"not an inference request: {error}", status=400) from None
    tensors, place = [], len(body) if length is None else length
    for each in head.inputs:
        size = size_of(each.name, each.shape)
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
            values = _from_bytes(each, body, place, given, size)
            place += given
        tensors.append(Tensor(each.name, each.datatype, each.shape, values))
    if place != len(body):
        raise InputError(f"{len(body) - place} bytes after the last tensor belong to none")
    return head, tensors


def wanted(head: Head, known: Sequence[str], usual: Sequence[str]) -> list[tuple[str, bool]]:
    """The outputs, and which of them as bytes."""
    all_binary = (head.parameters or _EMPTY).get(BINARY_ALL, False) is True
    if not head.outputs:
        return [(name, all_binary) for name in usual]
    outputs: dict[str, bool] = {}
    for each in head.outputs:
        if each.name not in known:
            raise InputError(
                f"the model has no output {shown(each.name)}; there is {', '.join(known)}",
                field=each.name,
            )
        if each.name in outputs:
            raise InputError(f"the output {shown(each.name)} is asked for twice", field=each.name)
        parameters = each.parameters or _EMPTY
        if parameters.get("classification"):
            raise InputError(
                "the classification extension is not served; ask for prediction and probabilities",
                field=each.name,
            )
        outputs[each.name] = parameters.get(BINARY_DATA, all_binary) is True
    return list(outputs.items())


def _from_bytes(each: Input, body: bytes, place: int, length: int, size: int) -> Values:
    if each.datatype == BYTES:
        return unpacked(body[place : place + length], size, each.name)
    dtype = _number(each)
    if length != size * dtype.itemsize:
        raise InputError(
            f"{shown(each.name)}: {each.shape} of {each.datatype} are {size * dtype.itemsize} "
            f"bytes, not {length}",
            field=each.name,
        )
    values: NDArray[Any] = np.frombuffer(body, dtype, size, place)
    # JSON of any length comes before it
    return values if values.flags.aligned else values.copy()


def _from_json(each: Input, size: int) -> Values:
    if not len(each.data):
        raise InputError(f"{shown(each.name)} has no data", field=each.name)
    dtype = None if each.datatype == BYTES else _number(each)
    decoder = _LISTS["S" if dtype is None else dtype.kind]
    try:
        values = decoder.decode(each.data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        values = _from_nested(each, decoder.type)
    if len(values) != size:
        raise InputError(
            f"{shown(each.name)} holds {len(values)} values, its shape {each.shape} {size}",
            field=each.name,
        )
    if dtype is None:
        return list(values)
    try:
        return np.array(values, dtype)
    except OverflowError:
        raise InputError(
            f"{shown(each.name)} holds a value that is no {each.datatype}", field=each.name
        ) from None


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


def _number(each: Input) -> np.dtype[Any]:
    dtype = NUMBERS.get(each.datatype)
    if dtype is None:
        raise InputError(
            f"{shown(each.name)} is of the datatype {shown(each.datatype)}; there is "
            f"{', '.join(NUMBERS)} and {BYTES}",
            field=each.name,
        )
    return dtype
