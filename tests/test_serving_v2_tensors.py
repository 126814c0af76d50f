"""Bodies of the Open Inference Protocol -> rows, for versions of every kind, without a server."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.errors import HomeostatError, InputError
from homeostat.records import Feature, FeatureKind, ModelSpec, Task
from serving.open_inference.reader import InferReader
from serving.requests.forms import Piece, Reply
from serving.requests.parsing import Rows
from serving.requests.problem import Refused

MIXED = (
    Feature(name="age", integer=True),
    Feature(name="city", kind=FeatureKind.CATEGORY),
    Feature(name="income"),
)
NUMBERS = (Feature(name="age", integer=True), Feature(name="income"))
PIXELS = tuple(Feature(name=str(i)) for i in range(4))
IDS = ["01890a5d-ac96-774b-bcce-b302099a8057", "01890a5d-ac96-774b-bcce-b302099a8058"]


def reader(features: tuple[Feature, ...], **spec: Any) -> InferReader:
    return InferReader(
        ModelSpec(
            model="m",
            version="1",
            runtime="pyfunc",
            features=features,
            **{"task": Task.CLASSIFICATION, **spec},
        )
    )


TENSOR = reader(PIXELS, tensor_shape=(2, 2), classes=("no", "yes"), embedding="encoder")
COLUMNS = reader(MIXED)


def tensor(name: str, datatype: str, shape: Sequence[int], data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": data}


def body(*inputs: dict[str, Any], **members: Any) -> bytes:
    return json.dumps({"inputs": inputs, **members}).encode()


def binary(*inputs: tuple[str, str, Sequence[int], bytes], **members: Any) -> tuple[bytes, int]:
    head = [
        {
            "name": name,
            "datatype": datatype,
            "shape": list(shape),
            "parameters": {"binary_data_size": len(data)},
        }
        for name, datatype, shape, data in inputs
    ]
    text = json.dumps({"inputs": head, **members}).encode()
    return text + b"".join(data for *_, data in inputs), len(text)


def packed(*values: str) -> bytes:
    return b"".join(struct.pack("<I", len(v.encode())) + v.encode() for v in values)


def listed(rows: Rows) -> Any:
    if rows.matrix is not None:
        return rows.matrix.tolist()
    assert rows.columns is not None
    return {name: list(values) for name, values in rows.columns.items()}


@pytest.mark.parametrize("padding", range(5))
def test_bytes_become_a_matrix_wherever_they_lie(padding: int) -> None:
    """The JSON before them may have any length."""
    values = np.arange(8, dtype=np.float32)
    sent, length = binary(("input", "FP32", (2, 2, 2), values.tobytes()), id="x" * padding)
    rows = TENSOR.read(sent, length)
    assert rows.matrix is not None
    assert rows.count == 2
    assert rows.matrix.dtype == np.float32
    assert rows.matrix.flags.aligned
    assert rows.matrix.tolist() == values.reshape(2, 4).tolist()


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ((2, 2, 2), list(range(8))),
        ((2, 4), list(range(8))),
        ((2, 2, 2), [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]),
        ((2, 4), [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ],
)
def test_json_may_be_flat_or_nested(shape: Sequence[int], data: list[Any]) -> None:
    """And a row may have the model's shape, or be flat."""
    rows = TENSOR.read(body(tensor("input", "FP32", shape, data)), None)
    assert listed(rows) == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize(
    ("datatype", "dtype"), [("FP16", np.float16), ("INT8", np.int8), ("UINT16", np.uint16)]
)
def test_what_fits_without_loss_is_taken(datatype: str, dtype: type) -> None:
    """A float32 holds every value of a smaller type."""
    data = np.array([1, 2, 3, 4], dtype).tobytes()
    rows = TENSOR.read(*binary(("input", datatype, (1, 4), data)))
    assert listed(rows) == [[1, 2, 3, 4]]


def test_columns_come_one_by_one_in_any_order_and_form() -> None:
    """Numbers as bytes, strings as JSON, and the other way round; digits are kept."""
    age, income = np.array([2**53 + 1, 3], np.int64), np.array([0.1, 1e39])
    inputs = [
        tensor("city", "BYTES", [2], ["Kyiv", "Łódź"]),
        {**tensor("income", "FP64", [2, 1], None), "parameters": {"binary_data_size": 16}},
        {**tensor("age", "INT64", [2], None), "parameters": {"binary_data_size": 16}},
    ]
    for each in inputs[1:]:
        del each["data"]
    text = json.dumps({"inputs": inputs}).encode()
    rows = COLUMNS.read(text + income.tobytes() + age.tobytes(), len(text))
    expected = {"age": [2**53 + 1, 3], "city": ["Kyiv", "Łódź"], "income": [0.1, 1e39]}
    assert listed(rows) == expected
    cities = ("city", "BYTES", (2,), packed("Kyiv", "Łódź"))
    ages = ("age", "INT64", (2,), age.tobytes())
    found = COLUMNS.read(*binary(ages, cities, ("income", "FP64", (2,), income.tobytes())))
    assert listed(found) == expected


def test_columns_of_numbers_are_a_matrix_of_doubles() -> None:
    """As from the server's own JSON; a float column may come as whole numbers."""
    given = body(tensor("income", "INT64", [2], [1, 2]), tensor("age", "INT32", [2], [3, 4]))
    rows = reader(NUMBERS).read(given, None)
    assert rows.matrix is not None
    assert rows.matrix.dtype == np.float64
    assert listed(rows) == [[3, 1], [4, 2]]


def test_own_ids_and_keys_come_as_inputs() -> None:
    """An empty key is none."""
    given = body(
        tensor("input", "FP32", [2, 4], [0] * 8),
        tensor("prediction_id", "BYTES", [2], ["a", "b"]),
        tensor("key", "BYTES", [2], ["user", ""]),
    )
    rows = TENSOR.read(given, None)
    assert (rows.ids, rows.keys) == (["a", "b"], ["user", None])


def test_a_feature_of_that_name_is_the_feature() -> None:
    """A model's own columns come first."""
    model = reader((Feature(name="key", kind=FeatureKind.CATEGORY), Feature(name="x")))
    given = body(tensor("key", "BYTES", [1], ["k"]), tensor("x", "FP64", [1], [1.5]))
    rows = model.read(given, None)
    assert (listed(rows), rows.keys) == ({"key": ["k"], "x": [1.5]}, None)


GOOD = tensor("input", "FP32", [1, 4], [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([], "missing"),
        ([{**GOOD, "name": "other"}], 'no input \\"?"other"'),
        ([GOOD, GOOD], "twice"),
        ([{**GOOD, "shape": [1, 3]}], "4 values"),
        ([{**GOOD, "shape": [2, 2]}], "shape"),
        ([{**GOOD, "shape": []}], "4 values"),
        ([{**GOOD, "shape": [0, 4], "data": []}], "no rows"),
        ([{**GOOD, "shape": [-1, -4]}], "negative"),
        ([{**GOOD, "shape": [1] * 40}], "impossible"),
        ([{**GOOD, "shape": [2**62, 2**62]}], "values"),
        ([{**GOOD, "shape": [1, 10**4000, 10**4000]}], "a huge number"),
        ([{**GOOD, "datatype": "FP64"}], "is FP32, not"),
        ([{**GOOD, "datatype": "INT64"}], "is FP32, not"),
        ([{**GOOD, "datatype": "BYTES", "data": list("abcd")}], "is FP32, not"),
        ([{**GOOD, "datatype": "FP8"}], "datatype"),
        ([{**GOOD, "datatype": "UINT8", "data": [1, 2, 3, 256]}], "no UINT8"),
        ([{**GOOD, "datatype": "INT8", "data": [1, 2, 3, 2**70]}], "INT8"),
        ([{**GOOD, "data": [1, 2, 3, "4"]}], "flat"),
        ([{**GOOD, "data": [1, 2, 3, None]}], "flat"),
        ([{**GOOD, "data": [1, 2, 3, True]}], "flat"),
        ([{**GOOD, "data": [[1, 2], [3, 4]]}], "flat"),
        ([{**GOOD, "data": {"a": 1}}], "flat"),
        ([{**GOOD, "data": [1, 2, 3, 1e39]}], "row 0"),
        ([{k: v for k, v in GOOD.items() if k != "data"}], "no data"),
        ([GOOD, tensor("key", "BYTES", [2], ["a", "b"])], "shape"),
        ([GOOD, tensor("key", "INT64", [1], [1])], "BYTES"),
        ([GOOD, tensor("prediction_id", "BYTES", [1], [""])], "id"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")  # the server does not warn
def test_what_is_wrong_is_told(inputs: list[dict[str, Any]], says: str) -> None:
    """With the input's name, and nothing is guessed."""
    with pytest.raises(InputError, match=says):
        TENSOR.read(body(*inputs), None)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (packed("a") + b"\x01", "strings of its shape"),
        (packed("a", "b"), "strings of its shape"),
        (b"", "strings of its shape"),
        (b"\x09\x00\x00\x00ab", "cut off"),
        (b"\xff\xff\xff\xff", "cut off"),
        (b"\x01\x00\x00\x00\xff", "UTF-8"),
    ],
)
def test_strings_that_are_none_are_told(data: bytes, says: str) -> None:
    """Lengths that lead elsewhere, and bytes that are no text."""
    numbers = (
        ("age", "INT64", (1,), np.array([1]).tobytes()),
        ("income", "FP64", (1,), b"\0" * 8),
    )
    with pytest.raises(InputError, match=says):
        COLUMNS.read(*binary(*numbers, ("city", "BYTES", (1,), data)))


def test_bytes_that_do_not_add_up_are_told() -> None:
    """Too few, too many, and a length that is none."""
    sent, length = binary(("input", "FP32", (1, 4), b"\0" * 16))
    for wrong, size in ((sent[:-1], length), (sent + b"\0", length), (sent, len(sent) + 1)):
        with pytest.raises((InputError, Refused)):
            TENSOR.read(wrong, size)
    for no_length in (-1, 1.5, True, "16", 2**70):
        head = json.dumps(
            {"inputs": [{**GOOD, "data": None, "parameters": {"binary_data_size": no_length}}]}
        ).encode()
        with pytest.raises(InputError, match="binary_data_size"):
            TENSOR.read(head + b"\0" * 16, len(head))


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ([{"name": "other"}], "no output"),
        ([{"name": "prediction"}] * 2, "twice"),
        ([{"name": "prediction", "parameters": {"classification": 2}}], "classification"),
    ],
)
def test_outputs_that_there_are_not_are_told(outputs: list[Any], says: str) -> None:
    """Before anything is predicted."""
    with pytest.raises(InputError, match=says):
        TENSOR.read(body(GOOD, outputs=outputs), None)


PIECE = Piece(
    "m",
    "1",
    ("no", "yes"),
    IDS,
    ["yes", "no"],
    np.array([[0.25, 0.75], [1, 0]], np.float32),
    np.array([[1, 2, 3], [4, 5, 6]], np.float32),
)


def answer(given: tuple[bytes, int | None], piece: Piece = PIECE) -> tuple[Any, bytes, Reply]:
    form = TENSOR.read(*given).form
    assert form is not None
    reply = form(piece)
    assert isinstance(reply, Reply)
    headers = dict(reply.headers)
    length = int(headers.get(b"inference-header-content-length", len(reply.body)))
    return json.loads(reply.body[:length]), reply.body[length:], reply


def test_an_answer_has_what_was_asked_for() -> None:
    """In that order, and the embedding too; without a word, all but the embedding."""
    names = ["embedding", "prediction"]
    head, rest, _ = answer((body(GOOD, id="7", outputs=[{"name": n} for n in names]), None))
    assert (head["model_name"], head["model_version"], head["id"], rest) == ("m", "1", "7", b"")
    assert [each["name"] for each in head["outputs"]] == names
    assert head["outputs"][0] == tensor("embedding", "FP32", [2, 3], [1, 2, 3, 4, 5, 6])
    assert head["outputs"][1] == tensor("prediction", "BYTES", [2], ["yes", "no"])
    head, _, _ = answer((body(GOOD), None))
    names = [each["name"] for each in head["outputs"]]
    assert names == ["prediction", "probabilities", "prediction_id"]
    assert "id" not in head


@pytest.mark.parametrize("ids", [IDS, ["short", "x" * 67], ["ü" * 36, "a" * 36]])
def test_an_answer_of_bytes_can_be_read_again(ids: list[str]) -> None:
    """Made ids and the callers' own; classes the version did not name."""
    wanted = body(GOOD, parameters={"binary_data_output": True})
    piece = Piece("m", "1", ("no",), ids, ["yes", "no"], PIECE.probabilities, None)
    head, rest, _ = answer((wanted, None), piece)
    sizes = [each["parameters"]["binary_data_size"] for each in head["outputs"]]
    assert rest == packed("yes", "no") + PIECE.probabilities.tobytes() + packed(*ids)  # type: ignore[union-attr]
    assert sum(sizes) == len(rest)


@pytest.mark.parametrize("binary", [True, False])
def test_an_answer_that_stands_in_says_so(binary: bool) -> None:
    """As the server's own JSON does: of bytes and of JSON."""
    wanted = body(GOOD, parameters={"binary_data_output": binary})
    standing_in = Piece("m", "1", ("no", "yes"), IDS, ["yes", "no"], None, None, fallback=True)
    assert answer((wanted, None), standing_in)[0]["parameters"] == {"fallback": True}
    assert "parameters" not in answer((wanted, None))[0]


def test_some_outputs_may_be_bytes() -> None:
    """Each as its own parameters say, whatever the request says of all."""
    outputs = [
        {"name": "prediction", "parameters": {"binary_data": False}},
        {"name": "probabilities"},
    ]
    wanted = body(GOOD, outputs=outputs, parameters={"binary_data_output": True})
    head, rest, _ = answer((wanted, None))
    assert head["outputs"][0]["data"] == ["yes", "no"]
    assert np.frombuffer(rest, np.float32).tolist() == [0.25, 0.75, 1, 0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
INPUTS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["input", "key", "prediction_id", "age", "city", "", "\ud800"]),
        "shape": st.lists(st.integers(-2, 5) | st.just(2**63), max_size=4),
        "datatype": st.sampled_from(["FP32", "FP16", "INT64", "BYTES", "BOOL", "FP9"]),
    },
    optional={
        "data": JSON,
        "parameters": st.dictionaries(st.just("binary_data_size"), JSON | st.integers(0, 64)),
    },
)


@given(
    st.lists(INPUTS, max_size=3) | JSON,
    st.dictionaries(st.sampled_from(["id", "outputs", "parameters"]), JSON),
    st.binary(max_size=64),
    st.none() | st.integers(0, 400),
)
def test_no_body_is_our_fault(inputs: Any, members: Any, tail: bytes, length: int | None) -> None:
    """Whatever comes is either rows or an error that the caller is told."""
    text = json.dumps({"inputs": inputs, **members}).encode()
    for model in (TENSOR, COLUMNS):
        for size in (length, len(text)):
            try:
                rows = model.read(text + tail, size)
            except HomeostatError:
                continue
            assert rows.count > 0


@pytest.mark.filterwarnings("ignore:overflow")
@given(st.binary(max_size=200), st.integers(0, 10_000))
def test_nor_are_bytes_that_changed_on_the_way(noise: bytes, place: int) -> None:
    """A right request with some of its bytes replaced."""
    sent, length = binary(
        ("age", "INT64", (2,), np.array([1, 2]).tobytes()),
        ("city", "BYTES", (2,), packed("Kyiv", "Oslo")),
        ("income", "FP64", (2,), np.array([0.5, 1]).tobytes()),
    )
    place %= len(sent)
    wrong = sent[:place] + noise + sent[place + len(noise) :]
    for size in (length, None):
        try:
            assert COLUMNS.read(wrong, size).count > 0
        except HomeostatError:
            continue
