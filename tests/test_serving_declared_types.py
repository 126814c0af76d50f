"""What a version declares of its columns, 32 bits or a boolean, holds at every door."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from hypothesis import given
from hypothesis import strategies as st
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from score_kit import score
from serving_kit import Server, publish, running
from tritonclient.utils import InferenceServerException
from typed_kit import MODEL, add_typed, typed_project

from homeostat import columns
from homeostat.errors import InputError
from homeostat.journal.reader import Journal
from homeostat.records import Feature, FeatureKind, ModelSpec, Task
from homeostat.settings import Settings
from serving.open_inference.reader import InferReader
from serving.requests.parsing import RowReader, Rows

TYPES = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
TOO_LARGE = 3_000_000_000
RANGE = "from -2147483648 to 2147483647"


def spec_of(dtype: str | None, features: tuple[Feature, ...]) -> ModelSpec:
    return ModelSpec(
        model="m",
        version="1",
        runtime="pyfunc",
        task=Task.CLASSIFICATION,
        features=features,
        tensor_shape=None if dtype is None else (len(features),),
        tensor_dtype=dtype or "float32",
    )


def borders(dtype: str) -> st.SearchStrategy[float]:
    """Values that JSON's numbers hold exactly, about both ends of the type."""
    info = np.iinfo(dtype)
    step = 1 if info.bits < 64 else 4096
    ends = st.sampled_from([float(info.min), float(int(info.max) + 1)])
    return st.builds(lambda end, steps: end + steps * step, ends, st.integers(-3, 3))


@given(st.data(), st.sampled_from(TYPES))
def test_a_tensor_of_whole_numbers_holds_its_type(data: st.DataObject, dtype: str) -> None:
    """What numpy can hold is taken, anything else is named with its row; nothing wraps."""
    value, info = data.draw(borders(dtype)), np.iinfo(dtype)
    spec = spec_of(dtype, (Feature(name="a", integer=True), Feature(name="b", integer=True)))
    by_name = data.draw(st.booleans())
    rows = [[0, 1], {"a": 2, "b": value} if by_name else [2, value]]
    body = json.dumps({"rows": rows}).encode()
    if info.min <= int(value) <= info.max:
        found = RowReader(spec).read(body).matrix
        assert found is not None
        assert found.astype(dtype).astype(np.float64).tolist() == [[0, 1], [2, value]]
        return
    with pytest.raises(InputError, match=f"from {info.min} to {info.max}") as caught:
        RowReader(spec).read(body)
    assert (caught.value.row, caught.value.field) == (1, "b")


@given(st.data(), st.sampled_from(TYPES))
def test_a_tensor_by_the_protocol_holds_it_too(data: st.DataObject, dtype: str) -> None:
    """As JSON: with the row, and the range."""
    value, info = int(data.draw(borders(dtype))), np.iinfo(dtype)
    spec = spec_of(dtype, (Feature(name="a", integer=True),))
    tensor = {"name": "input", "datatype": dtype.upper(), "shape": [2, 1], "data": [1, value]}
    body = json.dumps({"inputs": [tensor]}).encode()
    if info.min <= value <= info.max:
        found = InferReader(spec).read(body, None).matrix
        assert found is not None
        assert found.astype(dtype).tolist() == [[1], [value]]
        return
    with pytest.raises(InputError, match=f"{info.min} to {info.max}") as caught:
        InferReader(spec).read(body, None)
    assert caught.value.row == 1


@pytest.mark.parametrize("others", [(), (Feature(name="c", kind=FeatureKind.CATEGORY),)])
@pytest.mark.parametrize("value", [-(2**31) - 1, -(2**31), 2**31 - 1, 2**31])
def test_a_column_of_32_bits(others: tuple[Feature, ...], value: int) -> None:
    """Among numbers alone, and beside text; in rows, and by the protocol."""
    spec = spec_of(None, (Feature(name="n", integer=True, dtype="int32"), *others))
    tensors = [{"name": "n", "datatype": "INT64", "shape": [1], "data": [value]}]
    tensors += [{"name": "c", "datatype": "BYTES", "shape": [1], "data": ["x"]} for _ in others]
    ways: list[Callable[[], Rows]] = [
        lambda: RowReader(spec).read(
            json.dumps({"rows": [[value, *("x" * len(others))]]}).encode()
        ),
        lambda: InferReader(spec).read(json.dumps({"inputs": tensors}).encode(), None),
    ]
    for read in ways:
        if -(2**31) <= value < 2**31:
            assert read().count == 1
            continue
        with pytest.raises(InputError, match=RANGE) as caught:
            read()
        assert (caught.value.row, caught.value.field) == (0, "n")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = typed_project(
        tmp_path_factory.mktemp("typed"),
        "[serving]\ngrpc_port = 0\nbreaker_errors = 3\nmax_queued_rows = 20000\n",
    )
    publish(settings, add_typed(settings), epoch=1)
    return settings


@pytest.fixture(scope="module")
def server(project: Settings) -> Iterator[Server]:
    with running(project.project) as found:
        yield found


def invoke(server: Server, body: bytes, kind: str) -> Any:
    return server.http.post("/invocations", content=body, headers={"content-type": kind})


def tensors(module: Any, count: int, sure: Any, kind: str = "BOOL") -> list[Any]:
    values = {
        "count": ("INT64", np.array([1, count])),
        "sure": (kind, np.array(sure, bool if kind == "BOOL" else object)),
        "width": ("FP64", np.array([0.5, 1.5])),
    }
    given = [module.InferInput(name, [2], kind) for name, (kind, _) in values.items()]
    for tensor, (_, array) in zip(given, values.values(), strict=True):
        tensor.set_data_from_numpy(array)
    return given


def test_numbers_past_32_bits_are_the_callers_fault(server: Server, project: Settings) -> None:
    """At each door they are refused with row, field and range, and the breaker stays closed."""
    row = {"count": TOO_LARGE, "sure": True, "width": 1.0}
    for _ in range(5):
        answer = server.predict([{**row, "count": 1}, row])
        assert answer.status_code == 422, answer.text
        problem = answer.json()
        assert (problem["row"], problem["field"]) == (1, "count")
        assert RANGE in problem["detail"]
    csv = f"count,sure,width\n1,True,1\n{TOO_LARGE},True,1\n".encode()
    split = {"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}
    for body, kind in ((csv, "text/csv"), (json.dumps(split).encode(), "application/json")):
        answer = invoke(server, body, kind)
        assert (answer.status_code, RANGE in answer.text) == (400, True), answer.text
    address = json.loads((project.home / "serving.json").read_text())["grpc"]
    with (
        triton_http.InferenceServerClient(urlsplit(server.url).netloc) as over_http,
        triton_grpc.InferenceServerClient(address) as over_grpc,
    ):
        for module, client in ((triton_http, over_http), (triton_grpc, over_grpc)):
            with pytest.raises(InferenceServerException, match=RANGE):
                client.infer(MODEL, tensors(module, TOO_LARGE, [True, False]))
    assert server.about()["serving"]["breaker"] == "closed"
    assert server.predict([{**row, "count": 2**31 - 1}]).json()["predictions"] == ["yes"]


@pytest.mark.parametrize("value", [True, "true", "True", "1", 1, 1.0])
def test_each_way_to_say_true(server: Server, value: object) -> None:
    """And what it is the opposite of."""
    opposite = {"true": "false", "True": "False", "1": "0"}.get(str(value), False)
    for row in ([1, value, 0.5], {"count": 1, "sure": value, "width": 0.5}):
        assert server.predict([row]).json()["predictions"] == ["yes"]
    said = [opposite] if value != 1 or value is True else [0, 0.0]
    assert server.predict([[1, each, 0.5] for each in said]).json()["predictions"][0] == "no"


@pytest.mark.parametrize("value", ["TRUE", "yes", "", 2, 0.5, None, [], {}])
def test_no_other_word_is_false(server: Server, value: object) -> None:
    """It is refused, and named."""
    answer = server.predict([[1, True, 0.5], [1, value, 0.5]])
    assert answer.status_code == 422, answer.text
    assert (answer.json()["row"], answer.json()["field"]) == (1, "sure")


def test_clients_send_booleans_as_they_do(server: Server, project: Settings) -> None:
    """MLflow's of a frame and of CSV, and those of the Open Inference Protocol."""
    frame = pd.DataFrame({"count": [1, 2], "sure": [True, False], "width": [0.5, 1.5]})
    url = urlsplit(server.url)
    client = ScoringServerClient(url.hostname, url.port)
    assert client.invoke(frame).get_predictions()[0].tolist() == ["yes", "no"]
    answer = invoke(server, frame.to_csv(index=False).encode(), "text/csv")
    assert answer.json()["predictions"] == ["yes", "no"]
    address = json.loads((project.home / "serving.json").read_text())["grpc"]
    with (
        triton_http.InferenceServerClient(url.netloc) as over_http,
        triton_grpc.InferenceServerClient(address) as over_grpc,
    ):
        about = over_http.get_model_metadata(MODEL)["inputs"]
        assert {each["name"]: each["datatype"] for each in about}["sure"] == "BOOL"
        for module, client in ((triton_http, over_http), (triton_grpc, over_grpc)):
            for kind, sure in (("BOOL", [True, False]), ("BYTES", ["true", "0"])):
                found = client.infer(MODEL, tensors(module, 2, sure, kind))
                assert found.as_numpy("prediction").tolist() == [b"yes", b"no"]
            with pytest.raises(InferenceServerException, match='row 1: "sure" must be true'):
                client.infer(MODEL, tensors(module, 2, ["true", "no"], "BYTES"))


def test_the_log_has_booleans_as_two_words(server: Server, project: Settings) -> None:
    """However they came: a category of the monitor's."""
    ids = ["as-true", "as-True", "as-1", "as-0", "as-false"]
    rows = [[1, each, 0.5] for each in (True, "True", 1, "0", False)]
    assert server.predict(rows, ids=ids).status_code == 200
    server.http.post(f"/models/{MODEL}/flush")
    start, end = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    journal = Journal(project.journal_path, MODEL, Task.CLASSIFICATION)
    logged = journal.window(start, end, ["sure"]).to_pylist()
    found = {row[columns.PREDICTION_ID]: row["sure"] for row in logged}
    assert [found[id_] for id_ in ids] == ["true"] * 3 + ["false"] * 2


def binary(rows: int) -> tuple[bytes, dict[str, str]]:
    """Sound rows, and an output that the model does not have."""
    values = {
        "count": np.ones(rows, np.int64),
        "sure": np.ones(rows, bool),
        "width": np.ones(rows),
    }
    kinds = {"count": "INT64", "sure": "BOOL", "width": "FP64"}
    inputs = [
        {
            "name": name,
            "datatype": kinds[name],
            "shape": [rows],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in values.items()
    ]
    head = json.dumps({"inputs": inputs, "outputs": [{"name": "other"}]}).encode()
    body = head + b"".join(array.tobytes() for array in values.values())
    return body, {"inference-header-content-length": str(len(head))}


@pytest.mark.parametrize(("rows", "status"), [(100, 400), (20_000, 504)])
def test_many_booleans_as_bytes_are_read_beside_the_event_loop(
    server: Server, rows: int, status: int
) -> None:
    """They become lists, value by value. What waits for the thread is told that its time is over;
    what is read at once is told what is wrong with it."""
    body, headers = binary(rows)
    path = f"/v2/models/{MODEL}/infer"
    headers = {**headers, "x-request-timeout": "0.000001"}
    answer = server.http.post(path, content=body, headers=headers)
    assert answer.status_code == status, answer.text


def test_too_many_rows_of_a_table_are_refused_whatever_is_in_them(server: Server) -> None:
    """As CSV, as columns, and as rows whose columns are in another order."""
    count = 20_001
    names = ["width", "sure", "count"]
    wrong = {name: ["?"] * count for name in names}
    split = {"columns": names, "data": [["?", "?", "?"]] * count}
    csv = b"width,sure,count\n" + b"?,?,?\n" * count
    answers = [
        invoke(server, csv, "text/csv"),
        server.http.post("/invocations", json={"inputs": wrong}),
        server.http.post("/invocations", json={"dataframe_split": split}),
    ]
    for answer in answers:
        assert (answer.status_code, f"{count} rows" in answer.text) == (413, True), answer.text


def test_batch_scoring_takes_the_same(project: Settings, tmp_path: Path) -> None:
    """A Parquet column of booleans or of their words; what is out of range is a bad row."""
    others = {"count": [1, 2, TOO_LARGE, 4], "width": [0.5, 1.5, 2.5, 3.5]}
    for place, (sure, bad) in enumerate(
        [
            ([True, False, True, None], "is missing"),
            (["1", "false", "true", "YES"], "true or false"),
        ]
    ):
        target = tmp_path / f"out{place}.parquet"
        pq.write_table(pa.table({**others, "sure": sure}), tmp_path / "in.parquet")
        done = score(project, tmp_path / "in.parquet", target)
        assert [(each["row"], each["column"]) for each in done.bad] == [
            ("2", "count"),
            ("3", "sure"),
        ], done.error
        assert RANGE in done.bad[0]["problem"]
        assert bad in done.bad[1]["problem"]
        assert pq.read_table(target)["prediction"].to_pylist() == ["yes", "no"]
