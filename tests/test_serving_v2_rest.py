"""The Open Inference Protocol over REST: a client of others' making, and requests by hand."""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from deltalake import DeltaTable
from serving_kit import CLASSES, MODEL, Network, Server, add_version, make_project, publish, running
from tritonclient.utils import InferenceServerException

from homeostat.auth import Scope, add_key, new_key
from homeostat.settings import Settings

INFER = f"/v2/models/{MODEL}/infer"
ROWS = np.array([[[1, 2], [3, 4]], [[0.5, -1], [0, 2]], [[9, 8], [7, 6]]], np.float32)
LENGTH = "Inference-Header-Content-Length"
PROJECT = """
[serving]
max_body = "64KB"
max_queued_rows = 1000
[journal]
commit_every = "200ms"
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    project = make_project(tmp_path_factory.mktemp("v2") / "project", PROJECT)
    publish(project, add_version(project, 1), epoch=1)
    return project


@pytest.fixture(scope="module")
def server(project: Settings) -> Iterator[Server]:
    """Serves version 2, and keeps version 1 in memory."""
    with running(project.project) as server:
        publish(project, add_version(project, 2), epoch=2)
        server.wait_for_version(2)
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(urlsplit(server.url).netloc) as client:
        yield client
    del client
    gc.collect()  # it ends green threads, and may do so in this thread alone


def given(rows: np.ndarray = ROWS, *, binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("input", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return tensor


def wanted(*names: str, binary: bool = True) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


NETWORKS = {version: Network(version) for version in (1, 2)}


def check(result: triton.InferResult, version: int = 2, rows: np.ndarray = ROWS) -> None:
    classes, probabilities = NETWORKS[version].expected(rows.reshape(len(rows), 4).tolist())
    said = [
        each if isinstance(each, str) else each.decode() for each in result.as_numpy("prediction")
    ]
    assert said == classes
    assert result.as_numpy("probabilities") == pytest.approx(np.array(probabilities), abs=1e-5)
    assert result.get_response()["model_version"] == str(version)


def check_by_hand(http: httpx.Client, rows: np.ndarray) -> None:
    """For threads: the client's own are green ones, and may not be shared."""
    tensor = {"name": "input", "datatype": "FP32", "shape": list(rows.shape)}
    sent = {"inputs": [{**tensor, "data": rows.ravel().tolist()}]}
    outputs = http.post(INFER, json=sent).raise_for_status().json()["outputs"]
    data = {each["name"]: each["data"] for each in outputs}
    classes, probabilities = NETWORKS[2].expected(rows.reshape(len(rows), 4).tolist())
    assert data["prediction"] == classes
    found = np.array(data["probabilities"]).reshape(len(rows), -1)
    assert found == pytest.approx(np.array(probabilities), abs=1e-5)


@pytest.mark.parametrize("inputs_binary", [True, False])
@pytest.mark.parametrize("outputs", [None, True, False])
def test_a_client_gets_its_predictions(
    client: triton.InferenceServerClient, inputs_binary: bool, outputs: bool | None
) -> None:
    """Bytes and JSON, both ways, with the request's id."""
    names = ("probabilities", "prediction")
    asked = None if outputs is None else wanted(*names, binary=outputs)
    sent = [given(binary=inputs_binary)]
    result = client.infer(MODEL, sent, request_id="mine", outputs=asked)
    check(result)
    assert result.get_response()["id"] == "mine"


def test_a_version_may_be_named_while_it_is_in_memory(client: triton.InferenceServerClient) -> None:
    """The one that serves and the one before; of others the answer says which there are."""
    for version in (1, 2):
        check(client.infer(MODEL, [given()], model_version=str(version)), version)
        assert client.is_model_ready(MODEL, str(version))
    with pytest.raises(
        InferenceServerException, match=r"version 3 .* not in memory; those that are: (1, 2|2, 1)$"
    ) as wrong:
        client.infer(MODEL, [given()], model_version="3")
    assert wrong.value.status() == "404"
    assert not client.is_model_ready(MODEL, "3")


def test_a_client_learns_what_there_is(client: triton.InferenceServerClient) -> None:
    """Health, the server, the model's tensors, and which of its ways are fast."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    about = client.get_model_metadata(MODEL)
    assert about["versions"] == ["1", "2"]
    assert about["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 2, 2]}]
    assert {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]} in about["outputs"]
    parameters = about["parameters"]
    assert (parameters["version"], parameters["classes"]) == ("2", list(CLASSES))
    assert parameters["fast_paths"]["matrix"] is True
    assert parameters["fast_paths"]["own_thread"] is False
    assert client.get_model_metadata(MODEL, "1")["parameters"]["version"] == "1"


def test_many_at_once_each_get_their_own(server: Server) -> None:
    """Answers do not change places, and requests of two doors share batches."""

    def ask(number: int) -> None:
        rows = np.full((number % 5 + 1, 2, 2), number / 10, np.float32)
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for _ in range(5):
                check_by_hand(http, rows)
                answer = server.predict(rows.reshape(-1, 4).tolist()).json()
                _, expected = NETWORKS[2].expected(rows.reshape(-1, 4).tolist())
                assert np.array(answer["probabilities"]) == pytest.approx(
                    np.array(expected), abs=1e-5
                )

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(16)))


def test_predictions_are_logged_under_the_ids_that_go_out(
    server: Server, project: Settings
) -> None:
    """Made by the server, or the caller's own; with the caller's keys."""
    names = {"prediction_id": ["mine-1", "mine-2", "mine-3"], "key": ["anna", "", "ben"]}
    own = [{"name": n, "datatype": "BYTES", "shape": [3], "data": v} for n, v in names.items()]
    tensor = {"name": "input", "datatype": "FP32", "shape": [3, 4]}
    data = {**tensor, "data": ROWS.ravel().tolist()}
    answer = server.http.post(INFER, json={"inputs": [data, *own]}).json()
    ids = {each["name"]: each["data"] for each in answer["outputs"]}["prediction_id"]
    assert ids == names["prediction_id"]
    made = server.http.post(INFER, json={"inputs": [data]}).json()
    made_ids = {each["name"]: each["data"] for each in made["outputs"]}["prediction_id"]
    server.http.post(f"/models/{MODEL}/flush").raise_for_status()
    files = DeltaTable(f"{project.journal_path}/{MODEL}/predictions").file_uris()
    found = duckdb.execute(f"select prediction_id, key from read_parquet({files})").fetchall()
    logged = dict(found)
    assert set(ids) | set(made_ids) <= set(logged)
    assert [logged[each] for each in ids] == ["anna", None, "ben"]


def post(server: Server, content: bytes, **headers: str) -> httpx.Response:
    return server.http.post(INFER, content=content, headers=headers)


def sent_by_hand() -> tuple[bytes, int]:
    head = {
        "inputs": [
            {
                "name": "input",
                "shape": [3, 2, 2],
                "datatype": "FP32",
                "parameters": {"binary_data_size": ROWS.nbytes},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(head).encode()
    return text + ROWS.tobytes(), len(text)


def test_the_bytes_are_where_the_protocol_has_them(server: Server) -> None:
    """JSON first, then the tensors one after the other; a header says where they begin."""
    body, length = sent_by_hand()
    answer = post(server, body, **{LENGTH: str(length)})
    assert answer.headers["content-type"] == "application/octet-stream"
    head = json.loads(answer.content[: int(answer.headers[LENGTH])])
    sizes = {each["name"]: each["parameters"]["binary_data_size"] for each in head["outputs"]}
    start = int(answer.headers[LENGTH]) + sizes["prediction"]
    found = np.frombuffer(answer.content[start : start + sizes["probabilities"]], np.float32)
    _, expected = NETWORKS[2].expected(ROWS.reshape(3, 4).tolist())
    assert found.reshape(3, 3) == pytest.approx(np.array(expected), abs=1e-5)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({LENGTH: "x"}, 400),
        ({LENGTH: "-1"}, 400),
        ({LENGTH: "9" * 30}, 400),
        ({LENGTH: "0"}, 400),
        ({LENGTH: "1"}, 400),
        ({LENGTH: "100000"}, 400),
        ({}, 400),
        ({"Content-Encoding": "gzip"}, 415),
    ],
)
def test_wrong_headers_are_told(server: Server, headers: dict[str, str], status: int) -> None:
    """As the protocol has errors, and nothing else."""
    answer = post(server, sent_by_hand()[0], **headers)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]


def test_a_wrong_datatype_is_told_with_the_right_one(server: Server) -> None:
    """Where the data does not even fit the wrong one."""
    given = {"name": "input", "shape": [1, 4], "datatype": "INT64", "data": [1.5, 2, 3, 4]}
    answer = post(server, json.dumps({"inputs": [given]}).encode())
    assert answer.status_code == 400
    assert answer.json()["error"].endswith("the model takes FP32 there")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/none/infer", 404),
        ("/v2/models/none/versions/1/infer", 404),
        (f"/v2/models/{MODEL}/versions/9/infer", 404),
        ("/v2/nothing", 404),
    ],
)
def test_what_is_not_there_is_told(server: Server, path: str, status: int) -> None:
    """In the protocol's words, by whatever way it was answered."""
    answer = server.http.post(path, content=b"{}")
    assert (answer.status_code, list(answer.json())) == (status, ["error"])


def test_too_much_is_refused(server: Server) -> None:
    """By bytes, by rows; and both ways of the server say so."""
    assert post(server, b"x" * 70_000).status_code == 413
    rows = np.zeros((1001, 4), np.float32)
    head = {"name": "input", "shape": [1001, 4], "datatype": "FP32"}
    text = json.dumps({"inputs": [{**head, "parameters": {"binary_data_size": rows.nbytes}}]})
    answer = post(server, text.encode() + rows.tobytes(), **{LENGTH: str(len(text))})
    assert (answer.status_code, "max_queued_rows" in answer.json()["error"]) == (413, True)


def test_damaged_requests_harm_nobody_else(server: Server) -> None:
    """Hundreds of them beside right ones: no 5xx, and the right ones are answered rightly."""
    body, length = sent_by_hand()
    dice = random.Random(7)

    def damage() -> tuple[bytes, int]:
        wrong = bytearray(body)
        for _ in range(dice.randint(1, 8)):
            wrong[dice.randrange(len(wrong))] = dice.randrange(256)
        cut = dice.choice([len(wrong), dice.randrange(len(wrong))])
        return bytes(wrong[:cut]), dice.choice([length, length, dice.randrange(len(body) + 9)])

    damaged = [damage() for _ in range(400)]

    def wrongly(part: int) -> set[int]:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            return {
                http.post(INFER, content=sent, headers={LENGTH: str(size)}).status_code
                for sent, size in damaged[part::4]
            }

    def rightly(_: int) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for _ in range(50):
                check_by_hand(http, ROWS)

    with ThreadPoolExecutor(6) as threads:
        right = threads.map(rightly, range(2))
        statuses = set().union(*threads.map(wrongly, range(4)))
        list(right)
    assert statuses <= {200, 400}
    assert 400 in statuses


def test_a_key_is_asked_for(tmp_path: Path) -> None:
    """The same keys as for every other door."""
    project = make_project(tmp_path / "project")
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    token, key = new_key("caller", frozenset({Scope.PREDICT}))
    add_key(project.keys_path, key)
    with running(project.project) as server:
        netloc = urlsplit(server.url).netloc
        with triton.InferenceServerClient(netloc) as client:
            with pytest.raises(InferenceServerException, match="Authorization") as wrong:
                client.infer(MODEL, [given()])
            assert wrong.value.status() == "401"
            allowed = {"Authorization": f"Bearer {token}"}
            check(client.infer(MODEL, [given()], headers=allowed), 1)
            check(client.infer(MODEL, [given()], model_version="1", headers=allowed), 1)
