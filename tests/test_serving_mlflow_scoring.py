"""MLflow's own client, and requests as curl sends them; scikit-learn models of named columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from registry_fixtures import LoggedModels
from serving_kit import Server, publish, running

from homeostat.registry.mlflow_registry import Registry
from homeostat.settings import Settings

FRAME = pd.DataFrame(
    {"count": [9, 0, 3], "width": [0.5, 0.25, 1.0], "colour": ["green", "blue", "red"]}
)
FLOWERS = np.array([[0.1, 0.2, 0.3, 0.4], [1.5, 1.2, 1.9, 1.1], [2.5, 2.6, 2.2, 2.9]])
GRPC = "[serving]\ngrpc_port = 0\n"


def project_of(logged: LoggedModels, folder: Any, tag: str, more: str = "") -> Settings:
    settings = logged.settings(folder, model=f"scored-{tag}", more=more)
    registry = Registry(settings)
    found = registry.find_model(f"run-{tag}")
    assert found is not None
    version = registry.register(found, f"run-{tag}")
    publish(settings, registry.fetch(version, feature_names=()), epoch=1)
    return settings


@pytest.fixture(scope="module")
def colours_project(
    logged_models: LoggedModels, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    return project_of(logged_models, tmp_path_factory.mktemp("colours"), "colours", GRPC)


@pytest.fixture(scope="module")
def colours(colours_project: Settings) -> Iterator[Server]:
    with running(colours_project.project) as server:
        yield server


@pytest.fixture(scope="module")
def flowers(
    logged_models: LoggedModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    project = project_of(logged_models, tmp_path_factory.mktemp("flowers"), "iris")
    with running(project.project) as server:
        yield server


@pytest.fixture(scope="module")
def expected(logged_models: LoggedModels) -> tuple[list[str], list[int]]:
    """What the models say in this process."""
    mlflow.set_tracking_uri(logged_models.uri)
    one, other = (
        mlflow.pyfunc.load_model(f"models:/{logged_models.models[tag]}")
        for tag in ("colours", "iris")
    )
    return one.predict(FRAME).tolist(), other.predict(FLOWERS).tolist()


def scoring_client(server: Server) -> ScoringServerClient:
    url = urlsplit(server.url)
    return ScoringServerClient(url.hostname, url.port)


def test_mlflows_client_gets_predictions_of_a_frame(
    colours: Server, expected: tuple[list[str], list[int]]
) -> None:
    """As from `mlflow models serve`, columns in any order."""
    client = scoring_client(colours)
    client.wait_server_ready(timeout=30)
    assert client.get_version() == mlflow.__version__
    for frame in (FRAME, FRAME[["colour", "count", "width"]]):
        assert client.invoke(frame).get_predictions()[0].tolist() == expected[0]


def test_mlflows_client_gets_predictions_of_an_array(
    flowers: Server, expected: tuple[list[str], list[int]]
) -> None:
    """Classes that are whole numbers are numbers again."""
    found = scoring_client(flowers).invoke(FLOWERS).get_predictions()[0].tolist()
    assert found == expected[1]
    assert all(isinstance(each, int) for each in found)


def invoke(server: Server, content: Any, kind: str = "application/json") -> httpx.Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return server.http.post("/invocations", content=body, headers={"content-type": kind})


def ways() -> Iterator[tuple[str, Any, str]]:
    split = FRAME.to_dict(orient="split")
    yield "split", {"dataframe_split": split}, "application/json"
    yield "split, no names", {"dataframe_split": {"data": split["data"]}}, "application/json"
    yield "records", {"dataframe_records": FRAME.to_dict("records")}, "application/json"
    yield "instances", {"instances": FRAME.to_dict("records")}, "application/json; charset=utf-8"
    yield "lists", {"instances": FRAME.values.tolist()}, ""
    yield "inputs", {"inputs": FRAME.to_dict("list")}, "application/json"
    yield "csv", FRAME.to_csv(index=False).encode(), "text/csv"
    turned = FRAME[["width", "colour", "count"]]
    yield "csv, other order", turned.to_csv(index=False).encode(), "text/csv; charset=UTF-8"


@pytest.mark.parametrize(
    ("content", "kind"), [pytest.param(content, kind, id=name) for name, content, kind in ways()]
)
def test_every_shape_of_rows_is_taken(
    colours: Server, expected: tuple[list[str], list[int]], content: Any, kind: str
) -> None:
    """As MLflow's page has them; with ids that labels can refer to."""
    answer = invoke(colours, content, kind)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["predictions"] == expected[0]
    label = {"labels": [{"id": found["ids"][0], "value": "go"}]}
    assert colours.http.post("/labels", json=label).json() == {"stored": 1}


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"inputs": FLOWERS.tolist()}, "application/json"),
        ({"instances": FLOWERS.tolist()}, "application/json"),
        ({"inputs": {"anything": FLOWERS.tolist()}}, "application/json"),
        (pd.DataFrame(FLOWERS).to_csv(index=False).encode(), "text/csv"),
        (pd.DataFrame(FLOWERS).to_csv(index=False, lineterminator="\n\r\n").encode(), "text/csv"),
    ],
    ids=["inputs", "instances", "named", "csv", "csv with empty lines"],
)
def test_a_tensor_comes_in_every_shape_too(
    flowers: Server, expected: tuple[list[str], list[int]], content: Any, kind: str
) -> None:
    """One tensor has no names to go by."""
    assert invoke(flowers, content, kind).json()["predictions"] == expected[1]


@pytest.mark.parametrize(
    ("content", "kind", "status", "says"),
    [
        (b"", "application/json", 400, "scoring request"),
        (b"[]", "application/json", 400, "scoring request"),
        ({}, "application/json", 400, "exactly one"),
        ({"inputs": [], "instances": []}, "application/json", 400, "exactly one"),
        ({"inputs": []}, "application/json", 400, "empty"),
        ({"inputs": 3}, "application/json", 400, "rows"),
        ({"inputs": {"count": [1]}}, "application/json", 400, "missing"),
        ({"inputs": {**FRAME.to_dict("list"), "count": [1]}}, "application/json", 400, "length"),
        ({"inputs": {**FRAME.to_dict("list"), "x": [1]}}, "application/json", 400, "none of"),
        ({"inputs": [[1, 2, "red"]], "params": {"a": 1}}, "application/json", 400, "params"),
        ({"dataframe_split": {"data": [[1, 2]]}}, "application/json", 400, "2 values"),
        (
            {"dataframe_split": {"columns": ["colour", "count", "width"], "data": [["red"]]}},
            "application/json",
            400,
            "1 values",
        ),
        ({"dataframe_records": [{"count": "x", "width": 1, "colour": "red"}]}, "", 400, "count"),
        (b"count,width,colour\n1,2\n", "text/csv", 400, "2 values"),
        (b"count,width,colour\n1,x,red\n", "text/csv", 400, "width"),
        (b"count,width,colour\n1,,red\n", "text/csv", 400, "width"),
        (b"count,width,colour\n1,nan,red\n", "text/csv", 400, "width"),
        (b"count,width\n1,2\n", "text/csv", 400, "missing"),
        (b"count,width,colour\n", "text/csv", 400, "empty"),
        (b"", "text/csv", 400, "missing"),
        (b"\xff\xfe", "text/csv", 400, "UTF-8"),
        (b'count,width,"colour\n', "text/csv", 400, "none of"),
        (b"PAR1", "application/vnd.apache.parquet", 415, "text/csv"),
        (b"{}", "application/json; charset=latin-1", 415, "UTF-8"),
        (b"x" * 17_000_000, "application/json", 413, "max_body"),
    ],
)
def test_what_is_wrong_is_told_as_mlflow_tells_it(
    colours: Server, content: Any, kind: str, status: int, says: str
) -> None:
    """A code and a message, and never a 5xx."""
    answer = invoke(colours, content, kind)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error_code", "message"}
    assert says in answer.json()["message"]


def test_columns_of_numbers_in_csv_are_told_as_well(flowers: Server) -> None:
    """They are read all at once, by another way."""
    for content, says in (
        (b"a,b,c,d\n1,2,3\n", "3 values"),
        (b"a,b,c,d\n1,2,3,x\n", "numbers alone"),
        (b"a,b,c,d\n1,2,3,nan\n", "number"),
        (b"a,b,c,d\n", "empty"),
        (b"a,b\n1,2\n", "none of"),
    ):
        answer = invoke(flowers, content, "text/csv")
        assert (answer.status_code, says in answer.json()["message"]) == (400, True), answer.text


def test_supervisors_ask_as_they_do_of_mlflow(colours: Server) -> None:
    """/ping and /health answer 200 once a version serves."""
    for path in ("/ping", "/health"):
        assert colours.http.get(path).status_code == 200


def given(module: Any) -> list[Any]:
    """The frame as the Open Inference Protocol has columns."""
    kinds = {"count": "INT64", "width": "FP64", "colour": "BYTES"}
    tensors = []
    for name, kind in kinds.items():
        values = FRAME[name].to_numpy(dtype=object if kind == "BYTES" else None)
        tensor = module.InferInput(name, [len(FRAME)], kind)
        tensor.set_data_from_numpy(values)
        tensors.append(tensor)
    return tensors


def test_columns_come_by_the_open_inference_protocol(
    colours: Server, colours_project: Settings, expected: tuple[list[str], list[int]]
) -> None:
    """Strings among them, over REST and over gRPC; the metadata says which way is theirs."""
    address = json.loads((colours_project.home / "serving.json").read_text())["grpc"]
    with triton_http.InferenceServerClient(urlsplit(colours.url).netloc) as client:
        result = client.infer("scored-colours", given(triton_http))
        assert [each.decode() for each in result.as_numpy("prediction")] == expected[0]
        about = client.get_model_metadata("scored-colours")
        assert {each["name"]: each["datatype"] for each in about["inputs"]} == {
            "count": "INT64",
            "width": "FP64",
            "colour": "BYTES",
        }
        fast = about["parameters"]["fast_paths"]
        assert (fast["matrix"], fast["numpy_rows"], fast["own_thread"]) == (False, 0, True)
    with triton_grpc.InferenceServerClient(address) as client:
        result = client.infer("scored-colours", given(triton_grpc))
        assert [each.decode() for each in result.as_numpy("prediction")] == expected[0]
