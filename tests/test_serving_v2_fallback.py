"""An answer that stands in for a version that fails says so over every door."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from serving_kit import (
    MODEL,
    Breaks,
    Network,
    Server,
    add_version,
    make_project,
    publish,
    running,
)
from tritonclient.grpc import service_pb2 as messages

from homeostat.settings import Settings

PROJECT = """
[serving]
grpc_port = 0
breaker_errors = 2
breaker_rest = "1h"
"""
ROWS = np.array([[[1, 2], [3, 4]], [[0.5, -1], [0, 2]]], np.float32)
TOO_MUCH = [[200.0, 0, 0, 0]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    project = make_project(tmp_path_factory.mktemp("fallback") / "project", PROJECT)
    publish(project, add_version(project, 1), epoch=1)
    return project


@pytest.fixture(scope="module")
def server(project: Settings) -> Iterator[Server]:
    """Its champion, version 2, has failed too often: version 1 answers."""
    with running(project.project) as server:
        publish(project, add_version(project, 2, network=Breaks(2)), epoch=2)
        server.wait_for_version(2)
        assert "parameters" not in rest(server, binary=False)
        assert "parameters" not in rest(server, binary=True)
        assert "fallback" not in over_grpc(project).parameters
        for _ in range(2):
            assert server.predict(TOO_MUCH).status_code == 500
        yield server


def rest(server: Server, *, binary: bool) -> dict[str, Any]:
    with triton_http.InferenceServerClient(server.url.removeprefix("http://")) as client:
        tensor = triton_http.InferInput("input", list(ROWS.shape), "FP32")
        tensor.set_data_from_numpy(ROWS, binary_data=binary)
        outputs = [
            triton_http.InferRequestedOutput(name, binary_data=binary)
            for name in ("prediction", "probabilities")
        ]
        result = client.infer(MODEL, [tensor], outputs=outputs)
        assert classes(result) == expected(result)
        found: dict[str, Any] = result.get_response()
        return found


def classes(result: triton_http.InferResult) -> list[str]:
    """JSON has strings, bytes stay bytes."""
    found = result.as_numpy("prediction")
    return [each if isinstance(each, str) else each.decode() for each in found]


def expected(result: triton_http.InferResult) -> list[str]:
    """By the version that says it has answered."""
    response = result.get_response()
    version = response["model_version"] if isinstance(response, dict) else response.model_version
    network = {"1": Network(1), "2": Breaks(2)}[version]
    return network.expected(ROWS.reshape(2, 4).tolist())[0]


def over_grpc(project: Settings) -> messages.ModelInferResponse:
    address = json.loads((project.home / "serving.json").read_text())["grpc"]
    with triton_grpc.InferenceServerClient(address) as client:
        tensor = triton_grpc.InferInput("input", list(ROWS.shape), "FP32")
        tensor.set_data_from_numpy(ROWS)
        result = client.infer(MODEL, [tensor])
        assert classes(result) == expected(result)
        return result.get_response()


@pytest.mark.parametrize("binary", [False, True])
def test_over_rest(server: Server, binary: bool) -> None:
    """In the response's parameters, whether its tensors are JSON or bytes."""
    response = rest(server, binary=binary)
    assert (response["model_version"], response["parameters"]) == ("1", {"fallback": True})


def test_over_grpc(server: Server, project: Settings) -> None:
    """Likewise."""
    response = over_grpc(project)
    assert (response.model_version, response.parameters["fallback"].bool_param) == ("1", True)


def test_over_the_other_doors(server: Server) -> None:
    """As a member of their own answers."""
    rows = ROWS.reshape(2, 4).tolist()
    answers: list[httpx.Response] = [
        server.predict(rows),
        server.http.post("/invocations", json={"inputs": rows}),
    ]
    for answer in answers:
        said = answer.json()
        assert (said["version"], said["fallback"]) == ("1", True)


def test_a_version_that_is_asked_by_name_answers_itself(server: Server) -> None:
    """Nothing stands in for it, and nothing says so."""
    path = f"/v2/models/{MODEL}/versions/2/infer"
    sent = {"name": "input", "datatype": "FP32", "shape": [2, 4], "data": ROWS.ravel().tolist()}
    said = server.http.post(path, json={"inputs": [sent]}).json()
    assert (said["model_version"], said.get("parameters")) == ("2", None)
