"""The Open Inference Protocol over gRPC: clients of others' making, and messages by hand.

The server's own generated messages are never imported here: one process has room for one file
with the names of the protocol, and the client brings its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from serving_kit import MODEL, Network, Server, add_version, make_project, publish, running
from tritonclient.grpc import service_pb2 as messages
from tritonclient.utils import InferenceServerException

from homeostat.auth import Scope, add_key, new_key
from homeostat.records import Trial, TrialKind, VersionRef
from homeostat.settings import Settings

ROWS = np.array([[[1, 2], [3, 4]], [[0.5, -1], [0, 2]], [[9, 8], [7, 6]]], np.float32)
PROJECT = """
[serving]
grpc_port = 0
max_body = "64KB"
"""
METHOD = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    project = make_project(tmp_path_factory.mktemp("grpc") / "project", PROJECT)
    publish(project, add_version(project, 1), epoch=1)
    return project


@pytest.fixture(scope="module")
def server(project: Settings) -> Iterator[Server]:
    with running(project.project) as server:
        yield server


def address_of(project: Settings) -> str:
    return str(json.loads((project.home / "serving.json").read_text())["grpc"])


@pytest.fixture
def address(server: Server, project: Settings) -> str:
    return address_of(project)


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as client:
        yield client


def given(rows: np.ndarray = ROWS) -> triton.InferInput:
    tensor = triton.InferInput("input", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    return tensor


NETWORK = Network(1)


def check(result: triton.InferResult, rows: np.ndarray = ROWS) -> None:
    classes, probabilities = NETWORK.expected(rows.reshape(len(rows), 4).tolist())
    assert [each.decode() for each in result.as_numpy("prediction")] == classes
    assert result.as_numpy("probabilities") == pytest.approx(np.array(probabilities), abs=1e-5)


def test_a_client_gets_its_predictions(client: triton.InferenceServerClient) -> None:
    """With the request's id, of the outputs it names, of the version it names."""
    result = client.infer(MODEL, [given()], request_id="mine", model_version="1")
    check(result)
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == (MODEL, "1", "mine")
    wanted = [triton.InferRequestedOutput("prediction_id")]
    only = client.infer(MODEL, [given()], outputs=wanted).get_response()
    assert [output.name for output in only.outputs] == ["prediction_id"]


def test_a_client_that_does_not_wait_gets_its_predictions(address: str) -> None:
    """Many calls open at once on one connection, each with rows of its own."""

    async def ask() -> None:
        async with triton_aio.InferenceServerClient(address) as client:
            rows = [np.full((n % 4 + 1, 2, 2), n / 10, np.float32) for n in range(60)]
            results = await asyncio.gather(*(client.infer(MODEL, [given(r)]) for r in rows))
            for result, sent in zip(results, rows, strict=True):
                check(result, sent)

    asyncio.run(ask())


def test_a_client_learns_what_there_is(client: triton.InferenceServerClient) -> None:
    """Health, the server, the model's tensors."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert not client.is_model_ready(MODEL, "9")
    assert client.get_server_metadata().name == "homeostat"
    about = client.get_model_metadata(MODEL, as_json=True)
    assert (about["name"], about["versions"]) == (MODEL, ["1"])
    assert about["inputs"] == [{"name": "input", "datatype": "FP32", "shape": ["-1", "2", "2"]}]
    names = [each["name"] for each in about["outputs"]]
    assert names == ["prediction", "probabilities", "prediction_id"]


def by_hand(**changes: object) -> messages.ModelInferRequest:
    request = messages.ModelInferRequest(model_name=MODEL)
    tensor = request.inputs.add(name="input", datatype="FP32", shape=[3, 2, 2])
    tensor.contents.fp32_contents.extend(ROWS.ravel().tolist())
    for name, value in changes.items():
        setattr(request, name, value)
    return request


def call(address: str, request: bytes, **kind: str) -> messages.ModelInferResponse:
    with grpc.insecure_channel(address) as channel:
        data = channel.unary_unary(METHOD)(request, timeout=30, metadata=list(kind.items()))
    return messages.ModelInferResponse.FromString(data)


def test_values_may_be_fields_of_the_message(address: str) -> None:
    """Then the answer's are, too."""
    response = call(address, by_hand(id="7").SerializeToString())
    contents = {output.name: output.contents for output in response.outputs}
    classes, probabilities = NETWORK.expected(ROWS.reshape(3, 4).tolist())
    assert [each.decode() for each in contents["prediction"].bytes_contents] == classes
    found = np.array(contents["probabilities"].fp32_contents).reshape(3, 3)
    assert found == pytest.approx(np.array(probabilities), abs=1e-5)
    assert len(contents["prediction_id"].bytes_contents) == 3
    assert (response.id, len(response.raw_output_contents)) == ("7", 0)


def wrong_messages() -> Iterator[tuple[str, bytes, grpc.StatusCode]]:
    code = grpc.StatusCode
    yield "no message", b"\xff\xff\xff", code.INVALID_ARGUMENT
    yield "no model", by_hand(model_name="none").SerializeToString(), code.NOT_FOUND
    yield "no version", by_hand(model_version="9").SerializeToString(), code.NOT_FOUND
    yield "too large", b"\0" * 70_000, code.RESOURCE_EXHAUSTED
    inputs: dict[str, dict[str, Any]] = {
        "shape": {"shape": [3, -2, -2]},
        "size": {"shape": [3, 2, 1]},
        "datatype": {"datatype": "BYTES"},
        "unknown datatype": {"datatype": "FP9"},
        "name": {"name": "other"},
    }
    for name, change in inputs.items():
        request = by_hand()
        tensor = request.inputs[0]
        for field, value in change.items():
            if field == "shape":
                del tensor.shape[:]
                tensor.shape.extend(value)
            else:
                setattr(tensor, field, value)
        yield name, request.SerializeToString(), code.INVALID_ARGUMENT
    request = by_hand()
    request.raw_input_contents.extend([b"\0" * 48, b"\0" * 48])
    yield "raw for nothing", request.SerializeToString(), code.INVALID_ARGUMENT
    request = by_hand()
    request.raw_input_contents.append(b"\0" * 47)
    yield "raw cut off", request.SerializeToString(), code.INVALID_ARGUMENT
    request = by_hand()
    request.outputs.add(name="other")
    yield "output", request.SerializeToString(), code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("request_", "code"),
    [pytest.param(request, code, id=name) for name, request, code in wrong_messages()],
)
def test_what_is_wrong_is_told(address: str, request_: bytes, code: grpc.StatusCode) -> None:
    """By a status of gRPC that fits, with the reason."""
    with pytest.raises(grpc.RpcError) as wrong:
        call(address, request_)
    assert wrong.value.code() is code
    assert wrong.value.details()


def test_damaged_messages_harm_nobody_else(address: str) -> None:
    """Beside right ones: each is answered or refused as the caller's own fault."""
    request = by_hand()
    del request.inputs[0].contents.fp32_contents[:]
    request.raw_input_contents.append(ROWS.tobytes())
    body, dice = request.SerializeToString(), random.Random(7)

    def damage() -> bytes:
        wrong = bytearray(body)
        for _ in range(dice.randint(1, 6)):
            wrong[dice.randrange(len(wrong))] = dice.randrange(256)
        return bytes(wrong[: dice.choice([len(wrong), dice.randrange(len(wrong))])])

    damaged = [damage() for _ in range(200)]

    def wrongly(_: int) -> set[grpc.StatusCode]:
        codes = set()
        with grpc.insecure_channel(address) as channel:
            infer = channel.unary_unary(METHOD)
            for sent in damaged:
                try:
                    infer(sent, timeout=30)
                except grpc.RpcError as error:
                    codes.add(error.code())
        return codes

    def rightly(_: int) -> None:
        with triton.InferenceServerClient(address) as client:
            for _ in range(50):
                check(client.infer(MODEL, [given()]))

    with ThreadPoolExecutor(3) as threads:
        right = threads.map(rightly, range(2))
        codes = threads.submit(wrongly, 0).result()
        list(right)
    assert codes <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    assert grpc.StatusCode.INVALID_ARGUMENT in codes


def test_calls_are_counted_like_every_other_request(server: Server, address: str) -> None:
    """Answers, and refusals by the status that HTTP would have."""

    def told(code: int) -> float:
        start = f'homeostat_requests_total{{code="{code}",model="{MODEL}"}} '
        lines = server.http.get("/metrics").text.splitlines()
        return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))

    right, wrong = told(200), told(400)
    call(address, by_hand().SerializeToString())
    request = by_hand()
    request.inputs[0].name = "other"
    with pytest.raises(grpc.RpcError):
        call(address, request.SerializeToString())
    assert (told(200), told(400)) == (right + 1, wrong + 1)


def test_a_key_is_asked_for(tmp_path: Path) -> None:
    """In the metadata, as HTTP has it in a header; beyond loopback for reading as well."""
    project = make_project(tmp_path / "project", PROJECT)
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    tokens = {}
    for scope in (Scope.PREDICT, Scope.LABEL):
        tokens[scope], key = new_key(scope.value, frozenset({scope}))
        add_key(project.keys_path, key)
    with running(project.project, environ={"HOMEOSTAT_SERVING_HOST": "0.0.0.0"}):
        port = address_of(project).rpartition(":")[2]
        address, body = f"127.0.0.1:{port}", by_hand().SerializeToString()
        for headers, code in (
            ({}, grpc.StatusCode.UNAUTHENTICATED),
            ({"authorization": "Bearer hsk_wrong"}, grpc.StatusCode.UNAUTHENTICATED),
            ({"authorization": f"Bearer {tokens[Scope.LABEL]}"}, grpc.StatusCode.PERMISSION_DENIED),
        ):
            with pytest.raises(grpc.RpcError) as wrong:
                call(address, body, **headers)
            assert wrong.value.code() is code
        allowed = {"authorization": f"Bearer {tokens[Scope.PREDICT]}"}
        assert call(address, body, **allowed).model_version == "1"
        with triton.InferenceServerClient(address) as client:
            with pytest.raises(InferenceServerException, match="Authorization"):
                client.get_model_metadata(MODEL)
            assert client.get_model_metadata(MODEL, headers=allowed).name == MODEL
            assert client.is_server_ready()


def test_a_certificate_is_for_this_door_too(tmp_path: Path) -> None:
    """Who trusts it is answered, who speaks plainly is not: keys never go out in the clear."""
    project = make_project(
        tmp_path, f'{PROJECT}tls_certificate = "certificate.pem"\ntls_key = "key.pem"\n'
    )
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out certificate.pem -subj /CN=x"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    with running(project.project, wait=False) as server:
        server.wait_for(lambda: "ready in" in server.log.read_text())
        address, file = address_of(project), str(tmp_path / "certificate.pem")
        with triton.InferenceServerClient(address, ssl=True, root_certificates=file) as client:
            check(client.infer(MODEL, [given()]))
        with pytest.raises(grpc.RpcError) as wrong:
            call(address, by_hand().SerializeToString())
        assert wrong.value.code() is grpc.StatusCode.UNAVAILABLE


def test_without_keys_nobody_else_can_reach_it(tmp_path: Path) -> None:
    """The server does not start, as for HTTP."""
    project = make_project(tmp_path / "project", PROJECT)
    command = [sys.executable, "-m", "serving", "--project", str(project.project)]
    environ = {"HOMEOSTAT_SERVING_HOST": "0.0.0.0", "HOMEOSTAT_SERVING_PORT": "0"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=os.environ | environ
    )
    assert done.returncode == 1
    assert "homeostat keys new" in done.stderr


def test_a_port_that_is_taken_is_told(server: Server, address: str, tmp_path: Path) -> None:
    """By the name of the setting."""
    project = make_project(tmp_path / "project", PROJECT)
    command = [sys.executable, "-m", "serving", "--project", str(project.project)]
    port = address.rpartition(":")[2]
    environ = {"HOMEOSTAT_SERVING_GRPC_PORT": port, "HOMEOSTAT_SERVING_PORT": "0"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=os.environ | environ
    )
    assert done.returncode == 1
    assert "serving.grpc_port: cannot listen" in done.stderr


def test_open_calls_are_answered_before_the_end(tmp_path: Path) -> None:
    """SIGTERM under load: a call is answered, or it never began; the server exits with 0."""
    project = make_project(tmp_path / "project", PROJECT)
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    failures: list[grpc.RpcError] = []
    answered = threading.Semaphore(0)
    with running(project.project) as server:
        address = address_of(project)

        def ask() -> None:
            body = by_hand().SerializeToString()
            with grpc.insecure_channel(address) as channel:
                infer = channel.unary_unary(METHOD)
                while True:
                    try:
                        infer(body, timeout=30)
                        answered.release()
                    except grpc.RpcError as error:
                        failures.append(error)
                        return

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(40):
            assert answered.acquire(timeout=30)
        assert server.stop() == 0
        deadline = time.monotonic() + 30
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert "Traceback" not in server.log.read_text()
    assert len(failures) == 4
    assert {error.code() for error in failures} == {grpc.StatusCode.UNAVAILABLE}, failures


STANDING_IN = """
import sys
from homeostat.records import Feature, ModelSpec, Task
from serving.requests.forms import Piece
from serving.open_inference.answers import AnswerWriter
from serving.open_inference.grpc_messages import GrpcForm
spec = ModelSpec(model="m", version="1", runtime="torch", task=Task.REGRESSION,
                 features=(Feature(name="x"),))
form = GrpcForm(AnswerWriter(spec), "7", ["prediction"], False)
sys.stdout.buffer.write(form(Piece("m", "1", (), ["a"], [1.5], None, None, fallback=True)))
"""


def test_an_answer_that_stands_in_says_so() -> None:
    """In a parameter, as over REST; numbers are numbers."""
    done = subprocess.run([sys.executable, "-c", STANDING_IN], capture_output=True, check=True)
    answer = messages.ModelInferResponse.FromString(done.stdout)
    assert answer.parameters["fallback"].bool_param
    assert (answer.id, list(answer.outputs[0].contents.fp64_contents)) == ("7", [1.5])


def test_generated_messages_are_of_the_protocol_as_clients_have_it() -> None:
    """Every field of ours is one of theirs, by number, type and kind."""
    program = (
        "import sys; from serving.open_inference import open_inference_pb2 as messages; "
        "sys.stdout.buffer.write(messages.DESCRIPTOR.serialized_pb)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    theirs = FileDescriptorProto.FromString(messages.DESCRIPTOR.serialized_pb)
    ours = FileDescriptorProto.FromString(done.stdout)

    def fields(file: FileDescriptorProto) -> set[tuple[object, ...]]:
        found: set[tuple[object, ...]] = set()
        waiting = [("", message) for message in file.message_type]
        while waiting:
            path, message = waiting.pop()
            name = f"{path}.{message.name}"
            found |= {(name, f.name, f.number, f.type, f.label) for f in message.field}
            waiting += [(name, inner) for inner in message.nested_type]
        return found

    more = {each for each in fields(ours) - fields(theirs) if "Metadata" not in str(each[0])}
    assert more == set()


def test_generated_messages_are_up_to_date(tmp_path: Path) -> None:
    """`make protocol` would change nothing."""
    root = Path(__file__).parents[1]
    file = Path("serving") / "open_inference" / "open_inference.proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}"]
    subprocess.run([*command, f"--pyi_out={tmp_path}", str(file)], cwd=root, check=True)
    for suffix in ("_pb2.py", "_pb2.pyi"):
        made = file.with_name(f"{file.stem}{suffix}")
        assert (tmp_path / made).read_text() == (root / made).read_text()


def test_a_call_goes_where_the_rollout_says(
    client: triton.InferenceServerClient, server: Server, project: Settings
) -> None:
    """To the version on trial, where all requests are its; to another only by name."""
    champion = VersionRef(**{key: server.about()["serving"][key] for key in ("version", "digest")})
    trial = Trial(version=add_version(project, 2), kind=TrialKind.CANARY, share=1.0)
    try:
        publish(project, champion, 2, trial)
        server.wait_for(lambda: (server.about()["trial"] or {}).get("loaded"))
        for name, version in (("", "2"), ("1", "1"), ("2", "2")):
            response = client.infer(MODEL, [given()], model_version=name).get_response()
            assert response.model_version == version
    finally:
        publish(project, champion, 3)
        server.wait_for(lambda: server.about()["trial"] is None)
