"""One caller's large body is read beside the event loop: others go on being answered."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import grpc
import httpx
import pytest
from serving_kit import MODEL, PATIENCE, Server, add_version, make_project, publish, running
from tritonclient.grpc.service_pb2 import ModelInferRequest

from homeostat.settings import Settings

BYTES = 7_500_000
SETTINGS = "[serving]\ngrpc_port = 0\nmax_queued_rows = 5000000\n"
JSON = {"content-type": "application/json"}
TURNS = 60  # of the event loop, in which it takes what was sent
TRIES = 20  # a machine that is busy may hold up health, or us, for as long, but hardly each time
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
    rows = b"[0,1,2,3]," * (BYTES // 10 // 6)
    return "/predict", b'{"rows":[%b[0,1,2,"x"]]}' % rows, "application/json"


def table() -> tuple[str, bytes, str]:
    lines = b"0,1,2,3\n" * (BYTES // 8 // 3)
    return "/invocations", b"width,height,weight,shine\n%b0,1,2,x\n" % lines, "text/csv"


def tensor() -> tuple[str, bytes, str]:
    rows = BYTES // 10
    head = {"name": "input", "datatype": "FP32", "shape": [rows + 1, 4]}
    text = json.dumps({"inputs": [head]}).encode()
    data = b',"data":[%b[0,1,2,"x"]]}]}' % (b"[0,1,2,3]," * rows)
    return f"/v2/models/{MODEL}/infer", text.removesuffix(b"}]}") + data, "application/json"


def longest_wait(server: Server, send: Callable[[], object]) -> tuple[float, float]:
    """Of health, which is asked all the time, and how long `send` takes."""
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
    sending.result()
    return max(waits, default=0.0), whole


@pytest.mark.parametrize("body", [predict, table, tensor])
def test_health_is_answered_while_a_large_body_is_read(
    server: Server, body: Callable[[], tuple[str, bytes, str]]
) -> None:
    """Whose last value is wrong, so that each way to read it is tried to its end."""
    # tens of answers at least, where this machine lets us ask; on the event loop it would be one
    assert any(answered_meanwhile(server, *body()) > 3 for _ in range(TRIES))


def answered_meanwhile(server: Server, path: str, content: bytes, kind: str) -> int:
    """How often health was, while a body that is there but for its last byte was read."""
    url = httpx.URL(server.url)
    large = HTTPConnection(url.host, url.port, timeout=PATIENCE)
    large.putrequest("POST", path)
    large.putheader("content-type", kind)
    large.putheader("content-length", str(len(content)))
    large.endheaders(content[:-1])
    for _ in range(TURNS):
        server.http.get("/health/live").raise_for_status()
    large.send(content[-1:])
    meanwhile = 0
    while not select.select([large.sock], [], [], 0)[0]:
        server.http.get("/health/live").raise_for_status()
        meanwhile += 1
    answer = large.getresponse()
    assert answer.status in (400, 422), answer.read()
    large.close()
    return meanwhile


def test_why_a_large_body_is_not_json_is_told_too(server: Server) -> None:
    """From its headers, although it was read in a thread."""
    for kind, status in ((JSON, 400), ({"content-type": "text/csv"}, 415)):
        answer = server.http.post("/predict", content=b"a,b\n" * 100_000, headers=kind)
        assert answer.status_code == status, answer.text


def test_also_over_grpc(server: Server, project: Settings) -> None:
    """Where strings come one by one, here beside the tensor."""
    request = ModelInferRequest(model_name=MODEL)
    count = BYTES // 3
    keys = request.inputs.add(name="key", datatype="BYTES", shape=[count])
    keys.contents.bytes_contents.extend([b"k"] * (count - 1) + [b"\xff"])
    request.inputs.add(name="input", datatype="FP32", shape=[0, 4])
    address = json.loads((project.home / "serving.json").read_text())["grpc"]
    body = request.SerializeToString()
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(INFER)

        def send() -> None:
            with pytest.raises(grpc.RpcError) as wrong:
                infer(body, timeout=PATIENCE)
            assert wrong.value.code() is grpc.StatusCode.INVALID_ARGUMENT

        tried: list[tuple[float, float]] = []
        for _ in range(TRIES):
            tried.append(longest_wait(server, send))
            # the least of each: where the sending was held up, it says nothing of the reading
            if min(wait for wait, _ in tried) < 0.6 * min(whole for _, whole in tried):
                return
        raise AssertionError(tried)


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


def over_grpc(project: Settings, *, raw: bool) -> grpc.RpcError:
    request = ModelInferRequest(model_name=MODEL)
    keys = request.inputs.add(name="key", datatype="BYTES", shape=[101])
    request.inputs.add(name="input", datatype="FP32", shape=[101, 4])
    if raw:
        request.raw_input_contents.extend([b"\xff", b""])
    else:
        keys.contents.bytes_contents.extend([b"\xff"] * 101)
    address = json.loads((project.home / "serving.json").read_text())["grpc"]
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as wrong:
        channel.unary_unary(INFER)(request.SerializeToString(), timeout=PATIENCE)
    return wrong.value


def test_too_many_rows_are_refused_before_each_is_looked_at(tmp_path: Path) -> None:
    """At every door: though one of them is wrong, the answer is that they are too many."""
    project = make_project(
        tmp_path / "project", "[serving]\ngrpc_port = 0\nmax_queued_rows = 100\n"
    )
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    rows, infer = [[0, 1, 2, 3]] * 101, f"/v2/models/{MODEL}/infer"
    head = {"name": "key", "datatype": "BYTES", "shape": [101]}
    listed = {"inputs": [{**head, "data": [5] * 101}]}
    binary = json.dumps({"inputs": [{**head, "parameters": {"binary_data_size": 1}}]}).encode()
    length = {"inference-header-content-length": str(len(binary))}
    csv = {"content-type": "text/csv"}
    with running(project.project) as server:
        answers = [
            server.predict([["x", 1, 2, 3], *rows[1:]]),
            server.predict(rows, keys=[""] * 101),
            server.http.post(infer, json=listed),
            server.http.post(infer, content=binary + b"\xff", headers=length),
            server.http.post(
                "/invocations", content=b"a,b,c,d\n" + b"x,1,2,3\n" * 101, headers=csv
            ),
            server.http.post("/invocations", json={"instances": [["x", 1, 2, 3], *rows[1:]]}),
        ]
        for answer in answers:
            assert (answer.status_code, "101 rows" in answer.text) == (413, True), answer.text
        for raw in (True, False):
            error = over_grpc(project, raw=raw)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "101 rows" in (error.details() or "")
