"""One caller's large body is read beside the event loop: others go on being answered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from serving_kit import MODEL, PATIENCE, Server, add_version, make_project, publish, running
from tritonclient.grpc.service_pb2 import ModelInferRequest

from homeostat.settings import Settings

BYTES = 7_500_000
SETTINGS = "[serving]\ngrpc_port = 0\nmax_queued_rows = 5000000\n"
JSON = {"content-type": "application/json"}
INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = make_project(tmp_path_factory.mktemp("large"), SETTINGS)
    publish(settings, add_version(settings, 1, runtime="onnx"), epoch=1)
    return settings


@pytest.fixture(scope="module")
def server(project: Settings) -> Iterator[Server]:
    with running(project.project) as found:
        yield found


def predict() -> tuple[str, bytes, str]:
    rows = b"[0,1,2,3]," * (BYTES // 10)
    return "/predict", b'{"rows":[%b[0,1,2,"x"]]}' % rows, "application/json"


def table() -> tuple[str, bytes, str]:
    lines = b"0,1,2,3\n" * (BYTES // 8 // 2)
    return "/invocations", b"width,height,weight,shine\n%b0,1,2,x\n" % lines, "text/csv"


def tensor() -> tuple[str, bytes, str]:
    rows = BYTES // 10 // 2
    head = {"name": "input", "datatype": "FP32", "shape": [rows + 1, 4]}
    text = json.dumps({"inputs": [head]}).encode()
    data = b',"data":[%b[0,1,2,"x"]]}]}' % (b"[0,1,2,3]," * rows)
    return f"/v2/models/{MODEL}/infer", text.removesuffix(b"}]}") + data, "application/json"


def meanwhile(server: Server, send: Callable[[], Any]) -> Any:
    """What `send` comes to; health is asked all the time and has to answer many times."""
    with (
        ThreadPoolExecutor(1) as thread,
        httpx.Client(base_url=server.url, timeout=PATIENCE) as http,
    ):
        waits, began = [], time.monotonic()
        sending = thread.submit(send)
        while not sending.done():
            asked = time.monotonic()
            assert http.get("/health/live").status_code == 200
            waits.append(time.monotonic() - asked)
            time.sleep(0.005)
        whole = time.monotonic() - began
    assert len(waits) > 5
    assert max(waits) < 0.75 * whole, f"health waited {max(waits):.2f} s of {whole:.2f} s"
    return sending.result()


@pytest.mark.parametrize("body", [predict, table, tensor])
def test_health_is_answered_while_a_large_body_is_read(
    server: Server, body: Callable[[], tuple[str, bytes, str]]
) -> None:
    """Whose last value is wrong, so that each way to read it is tried to its end."""
    path, content, kind = body()
    answer = meanwhile(
        server, lambda: server.http.post(path, content=content, headers={"content-type": kind})
    )
    assert answer.status_code in (400, 422), answer.text


def test_also_over_grpc(server: Server, project: Settings) -> None:
    """Where strings come one by one, here beside the tensor."""
    request = ModelInferRequest(model_name=MODEL)
    count = BYTES // 3
    keys = request.inputs.add(name="key", datatype="BYTES", shape=[count])
    keys.contents.bytes_contents.extend([b"k"] * (count - 1) + [b"\xff"])
    request.inputs.add(name="input", datatype="FP32", shape=[0, 4])
    address = json.loads((project.home / "serving.json").read_text())["grpc"]
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(INFER)
        with pytest.raises(grpc.RpcError) as wrong:
            meanwhile(server, lambda: infer(request.SerializeToString(), timeout=PATIENCE))
    assert wrong.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_large_body_is_answered_as_a_small_one(server: Server, project: Settings) -> None:
    """By JSON and by CSV, by name too, with the ids that came."""
    row = [0.123456789, 1.0, 2.0, 3.0]
    count = 40_000
    small = server.predict([row]).json()
    body = json.dumps({"rows": [row] * count, "ids": [f"id-{i:06}" for i in range(count)]})
    assert len(body) > 1_000_000
    for path in ("/predict", f"/models/{MODEL}/versions/1/predict"):
        found = server.http.post(path, content=body, headers=JSON).json()
        assert found["predictions"] == small["predictions"] * count
        assert (found["ids"][0], found["ids"][-1]) == ("id-000000", f"id-{count - 1:06}")
    lines = b"width,height,weight,shine\n" + b"0.123456789,1.0,2.0,3.0\n" * count
    answer = server.http.post("/invocations", content=lines, headers={"content-type": "text/csv"})
    assert answer.json()["predictions"] == small["predictions"] * count


def test_too_many_rows_are_refused_before_each_is_looked_at(tmp_path: Path) -> None:
    """Though one of them is wrong, the answer is that they are too many."""
    project = make_project(tmp_path / "project", "[serving]\nmax_queued_rows = 100\n")
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    with running(project.project) as server:
        answer = server.predict([["x", 1, 2, 3]] + [[0, 1, 2, 3]] * 100)
        assert (answer.status_code, "101 rows" in answer.text) == (413, True), answer.text
