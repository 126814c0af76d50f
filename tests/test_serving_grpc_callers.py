"""Calls over gRPC in the queue: until when they wait, and who takes turns with whom."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from http2_kit import Raw
from serving_kit import MODEL, Network, Server, add_version, make_project, publish, running
from tritonclient.grpc import service_pb2 as messages
from tritonclient.utils import InferenceServerException

from homeostat.settings import Settings
from serving.requests.asked import seconds_of_grpc
from serving.requests.problem import Refused

INFER = "/inference.GRPCInferenceService/ModelInfer"
OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, UNAVAILABLE = "0", "3", "4", "14"
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


def given(value: float = 1.0) -> triton.InferInput:
    tensor = triton.InferInput("input", [1, 2, 2], "FP32")
    tensor.set_data_from_numpy(np.full((1, 2, 2), value, np.float32))
    return tensor


def by_hand() -> bytes:
    request = messages.ModelInferRequest(model_name=MODEL)
    tensor = request.inputs.add(name="input", datatype="FP32", shape=[1, 2, 2])
    tensor.contents.fp32_contents.extend([1, 2, 3, 4])
    data: bytes = request.SerializeToString()
    return data


def port_of(project: Settings) -> int:
    address = json.loads((project.home / "serving.json").read_text())["grpc"]
    return int(address.rpartition(":")[2])


def overdue(server: Server) -> float:
    start = f'homeostat_errors_total{{kind="gateway-timeout",model="{MODEL}"}} '
    lines = server.http.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))


WAITING = """
[serving]
grpc_port = 0
batch_wait = "300ms"
deadline = "100ms"
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Its requests wait 300 ms for others, and 100 ms where they do not say how long."""
    project = make_project(tmp_path_factory.mktemp("grpc") / "project", WAITING)
    publish(project, add_version(project, 1), epoch=1)
    return project


@pytest.fixture(scope="module")
def server(project: Settings) -> Iterator[Server]:
    with running(project.project) as server:
        yield server


@pytest.mark.parametrize(
    ("timeout", "status"),
    [
        ("20S", OK),
        ("99999999H", OK),
        ("20m", DEADLINE_EXCEEDED),
        ("0n", DEADLINE_EXCEEDED),
        ("", INVALID_ARGUMENT),
        ("20", INVALID_ARGUMENT),
        ("123456789n", INVALID_ARGUMENT),
    ],
)
def test_a_call_waits_for_as_long_as_it_says(
    server: Server, project: Settings, timeout: str, status: str
) -> None:
    """What is overdue in the queue is told so, by the server itself, and counted as over HTTP."""
    before = overdue(server)
    with Raw(port_of(project)) as raw:
        raw.begin()
        raw.head(1, INFER, grpc_timeout=timeout)
        raw.message(1, by_hand())
        assert raw.status() == status
    assert overdue(server) - before == (status == DEADLINE_EXCEEDED)


def test_a_call_that_does_not_say_waits_for_as_long_as_the_settings_say(
    server: Server, project: Settings
) -> None:
    """Unless it says more."""
    with triton.InferenceServerClient(f"127.0.0.1:{port_of(project)}") as client:
        with pytest.raises(
            InferenceServerException, match=r"time was over .*serving\.deadline"
        ) as wrong:
            client.infer(MODEL, [given()])
        assert wrong.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        answer = client.infer(MODEL, [given()], client_timeout=20).get_response()
        assert answer.model_version == "1"


def test_a_method_that_is_not_there_is_named(server: Server, project: Settings) -> None:
    """As the caller wrote it."""
    wanted = r"there is no method /inference\.GRPCInferenceService/ModelStatistics here"
    with (
        triton.InferenceServerClient(f"127.0.0.1:{port_of(project)}") as client,
        pytest.raises(InferenceServerException, match=wanted),
    ):
        client.get_inference_statistics(MODEL)


def test_a_caller_waits_from_its_first_byte(server: Server, project: Settings) -> None:
    """What a message takes to arrive is of its time."""
    with Raw(port_of(project)) as raw:
        raw.begin()
        raw.head(1, INFER, grpc_timeout="900m")
        time.sleep(0.8)  # of the 0.9 s; it would wait 0.3 s more
        raw.message(1, by_hand())
        assert raw.status() == DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"4m", 4e-3), (b"5u", 5e-6), (b"6n", 6e-9)],
)
def test_units_are_the_protocols(text: bytes, seconds: float) -> None:
    assert seconds_of_grpc(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [b"", b"S", b"-1S", b"1s", b"1.5S", b"1S ", "١S".encode()])
def test_a_time_that_is_none_is_refused(text: bytes) -> None:
    """And not taken for none."""
    with pytest.raises(Refused, match="grpc-timeout is a number") as refused:
        seconds_of_grpc(text)
    assert refused.value.status == 400


class Slow(Network):
    """Some hundredths of a second for each batch."""

    def __init__(self) -> None:
        super().__init__(1)
        self.heavy = torch.nn.Parameter(torch.eye(512))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        heavy: torch.Tensor = self.heavy
        for _ in range(4):
            heavy = heavy @ self.heavy
        return super().forward(rows) * heavy[0, 0]


def test_a_connection_with_many_calls_keeps_no_other_from_its_one(tmp_path: Path) -> None:
    """Without keys each connection is a caller of its own: the one that comes last is not the last
    to be answered."""
    project = make_project(tmp_path, "[serving]\ngrpc_port = 0\nmax_batch_rows = 2\n")
    publish(project, add_version(project, 1, network=Slow()), epoch=1)

    async def ask(address: str) -> int:
        """How many of sixty were answered before the one."""
        first = triton_aio.InferenceServerClient(address, channel_args=OWN_CONNECTION)
        second = triton_aio.InferenceServerClient(address, channel_args=OWN_CONNECTION)
        async with first, second:
            await second.is_server_live()
            many = [asyncio.ensure_future(first.infer(MODEL, [given(n)])) for n in range(60)]
            await asyncio.wait(many, return_when=asyncio.FIRST_COMPLETED)
            await second.infer(MODEL, [given(-1)])
            before: int = sum(each.done() for each in many)
            await asyncio.gather(*many)
        return before

    with running(project.project):
        address = f"127.0.0.1:{port_of(project)}"
        # who is slow to send the one, while the others are answered, has to try again
        assert any(asyncio.run(ask(address)) < 40 for _ in range(10))


FULL = """
[serving]
grpc_port = 0
batch_wait = "10m"
max_queued_rows = 4
"""


def test_more_connections_are_no_way_into_a_full_queue(tmp_path: Path) -> None:
    """Nobody gets in before others by opening another one."""
    project = make_project(tmp_path, FULL)
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    with running(project.project) as server:
        port = port_of(project)
        with Raw(port) as first, Raw(port) as second:
            for raw, calls in ((first, 5), (second, 1)):
                raw.begin()
                for stream in range(1, 2 * calls, 2):
                    raw.head(stream, INFER)
                    raw.message(stream, by_hand())
                assert raw.status() == UNAVAILABLE  # of the one that found the queue full
            assert server.predict([[1, 2, 3, 4]]).status_code == 503
