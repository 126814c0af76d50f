"""Traces of requests, as a collector gets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from collector_kit import Collected, Collector, collecting
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from serving_kit import (
    MODEL,
    PATIENCE,
    Breaks,
    Server,
    add_version,
    make_project,
    publish,
    running,
)
from tritonclient.utils import InferenceServerException

from homeostat.auth import Limit, Scope, add_key, new_key
from homeostat.settings import Settings

ROW = [1.0, 2.0, 3.0, 4.0]
TOO_MUCH = [200.0, 0, 0, 0]
PARTS = ("queue", "compute", "log", "encode")
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TENSOR = {"name": "input", "datatype": "FP32", "shape": [1, 4], "data": ROW}
BODIES = {
    "/predict": {"rows": [ROW]},
    f"/models/{MODEL}/predict": {"rows": [ROW]},
    f"/models/{MODEL}/versions/1/predict": {"rows": [ROW]},
    f"/v2/models/{MODEL}/infer": {"inputs": [TENSOR]},
    f"/v2/models/{MODEL}/versions/1/infer": {"inputs": [TENSOR]},
    "/invocations": {"inputs": [ROW]},
    f"/models/{MODEL}/invocations": {"inputs": [ROW]},
}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def traced(folder: Path, url: str, share: float = 1.0, more: str = "") -> Settings:
    text = f'[serving]\ngrpc_port = 0\ntraces = "{url}"\ntraces_share = {share}\n{more}\n'
    project = make_project(folder / "project", text)
    publish(project, add_version(project, 1, network=Breaks(1)), epoch=1)
    return project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Settings:
    return traced(tmp_path_factory.mktemp("traces"), collector.url)


@pytest.fixture(scope="module")
def running_server(project: Settings) -> Iterator[Server]:
    with running(project.project) as server:
        yield server


@pytest.fixture
def server(running_server: Server, collector: Collector) -> Server:
    """Of which nothing was collected yet: every test waits for all that it causes."""
    collector.spans.clear()
    return running_server


def count_of(server: Server, outcome: str) -> float:
    start = f'homeostat_traces_total{{outcome="{outcome}"}} '
    lines = server.http.get("/metrics").text.splitlines()
    return next(float(line.removeprefix(start)) for line in lines if line.startswith(start))


def ask_by_grpc(project: Settings, rows: list[float], **headers: str) -> Any:
    address = json.loads((project.home / "serving.json").read_text())["grpc"]
    with triton.InferenceServerClient(address) as client:
        tensor = triton.InferInput("input", [1, 4], "FP32")
        tensor.set_data_from_numpy(np.array([rows], np.float32))
        return client.infer(MODEL, [tensor], headers=headers)


def check_times(trace: Collected) -> None:
    """Its parts are in order, one after the other, and within the whole."""
    times = [trace.root.start_time_unix_nano]
    for name in PARTS:
        part = trace.parts[name]
        times += [part.start_time_unix_nano, part.end_time_unix_nano]
    times.append(trace.root.end_time_unix_nano)
    assert times == sorted(times)


def test_a_request_and_its_parts(server: Server, collector: Collector) -> None:
    """What it asked for, who answered it, under which ids, and when."""
    answer = server.predict([ROW, ROW], ids=["mine", "too"]).json()
    [trace] = collector.traces(1)
    assert trace.root.name == "POST /predict"
    assert not trace.root.parent_span_id
    assert trace.said == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "homeostat.model": MODEL,
        "homeostat.version": answer["version"],
        "homeostat.role": "champion",
        "homeostat.rows": 2,
        "homeostat.prediction_ids": ["mine", "too"],
        "homeostat.cached": False,
    }
    assert trace.resource["service.name"] == "homeostat"
    assert set(trace.parts) == set(PARTS)
    check_times(trace)
    assert collector.paths == {"/v1/traces"}


@pytest.mark.parametrize("path", BODIES)
def test_every_door_goes_on_with_its_callers_trace(
    server: Server, collector: Collector, path: str
) -> None:
    """And names the ids of its answer."""
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
    answer = server.http.post(path, json=BODIES[path], headers=headers)
    assert answer.status_code == 200
    [trace] = collector.traces(1)
    assert (trace.root.trace_id.hex(), trace.root.parent_span_id.hex()) == (TRACE, SPAN)
    assert trace.root.name == f"POST {path.replace('/versions/1/', '/versions/{version}/')}"
    assert trace.said["homeostat.prediction_ids"] == ids_of(answer)
    assert set(trace.parts) == set(PARTS)


def ids_of(answer: httpx.Response) -> list[str]:
    said = answer.json()
    if "ids" in said:
        return list(said["ids"])
    return list(next(o["data"] for o in said["outputs"] if o["name"] == "prediction_id"))


def test_a_call_goes_on_with_its_callers_trace(
    server: Server, project: Settings, collector: Collector
) -> None:
    """Over gRPC in the metadata; refusals have their reason."""
    result = ask_by_grpc(project, ROW, traceparent=f"00-{TRACE}-{SPAN}-01")
    [trace] = collector.traces(1)
    assert (trace.root.trace_id.hex(), trace.root.parent_span_id.hex()) == (TRACE, SPAN)
    assert trace.root.name == "inference.GRPCInferenceService/ModelInfer"
    assert (trace.said["rpc.system"], trace.said["rpc.method"]) == ("grpc", "ModelInfer")
    [given] = result.as_numpy("prediction_id")
    assert trace.said["homeostat.prediction_ids"] == [given.decode()]
    check_times(trace)
    with pytest.raises(InferenceServerException):
        ask_by_grpc(project, TOO_MUCH)
    assert collector.traces(2)[1].said["error.type"] == "model-failed"


def test_who_asks_without_a_trace_gets_none(server: Server, collector: Collector) -> None:
    """A caller that samples by itself is heard, whatever our share; what it says wrongly is not."""
    for header in (f"00-{TRACE}-{SPAN}-00", f"ff-{TRACE}-{SPAN}-01"):
        server.http.post("/predict", json=BODIES["/predict"], headers={"traceparent": header})
    [trace] = collector.traces(1)
    assert trace.root.trace_id.hex() != TRACE
    assert not trace.root.parent_span_id


def test_a_share_is_traced_and_whoever_asks_for_it(tmp_path: Path) -> None:
    """With a share of nothing that is only those."""
    with collecting() as collector:
        project = traced(tmp_path, collector.url, share=0.0)
        with running(project.project) as server:
            for _ in range(20):
                server.predict([ROW])
            headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
            server.http.post("/predict", json=BODIES["/predict"], headers=headers)
            [trace] = collector.traces(1)
            assert trace.root.trace_id.hex() == TRACE
            assert server.stop() == 0
        assert len(collector.traces(1)) == 1


def test_nobody_forces_traces_who_may_not_ask(tmp_path: Path) -> None:
    """Through no door: neither without a key nor past the limit of one."""
    token, key = new_key("limited", frozenset([Scope.PREDICT]), Limit(0.001, 2))
    forced = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
    with collecting() as collector:
        project = traced(tmp_path, collector.url, share=0.0)
        add_key(project.keys_path, key)
        with running(project.project) as server:
            statuses, codes = [], []
            for bearer in ("wrong", token, token):
                sent = forced | {"authorization": f"Bearer {bearer}"}
                answer = server.http.post("/predict", json=BODIES["/predict"], headers=sent)
                statuses.append(answer.status_code)
                try:
                    ask_by_grpc(project, ROW, **sent)
                except InferenceServerException as error:
                    codes.append(error.status().removeprefix("StatusCode."))
            assert statuses == [401, 200, 429]
            assert codes == ["UNAUTHENTICATED", "RESOURCE_EXHAUSTED"]
            assert server.stop() == 0
        assert [each.said.get("error.type") for each in collector.traces(2)] == [None, None]


def test_errors_are_told_and_whose_they_are(server: Server, collector: Collector) -> None:
    """By the kind that is counted; the caller's own are no failures of the server."""
    assert server.predict([ROW, ["no", "number"]]).status_code == 422
    assert server.predict([TOO_MUCH]).status_code == 500
    assert server.http.post(f"/v2/models/{MODEL}/versions/9/infer").status_code == 404
    wrong = {"x-request-timeout": "soon"}
    assert server.http.post("/predict", json={}, headers=wrong).status_code == 400
    found = [(each.said["error.type"], each.root.status.code) for each in collector.traces(4)]
    unset, error = Status.STATUS_CODE_UNSET, Status.STATUS_CODE_ERROR
    assert found == [
        ("invalid-input", unset),
        ("model-failed", error),
        ("not-found", unset),
        ("bad-request", unset),
    ]


def test_a_kept_answer_was_not_computed(tmp_path: Path) -> None:
    """And says so; the request it stands for was."""
    with collecting() as collector:
        project = traced(tmp_path, collector.url, more='cache = "1MB"')
        with running(project.project) as server:
            for _ in range(2):
                assert server.predict([ROW]).status_code == 200
            first, second = collector.traces(2)
            assert (first.said["homeostat.cached"], second.said["homeostat.cached"]) == (
                False,
                True,
            )
            assert set(first.parts) - set(second.parts) == {"compute"}


def test_what_waits_is_sent_before_the_end(tmp_path: Path) -> None:
    """SIGTERM right after an answer loses no trace, of any worker."""
    with collecting() as collector:
        project = traced(tmp_path, collector.url, more="workers = 2")
        with running(project.project) as server:
            for _ in range(10):
                with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
                    assert http.post("/predict", json={"rows": [ROW]}).status_code == 200
            assert server.stop() == 0
        assert len(collector.traces(10)) == 10


def test_a_collector_that_is_away_is_nothing_to_callers(tmp_path: Path) -> None:
    """Answers go on, what is lost is counted; once it is back it gets what comes then."""
    with collecting() as collector:
        collector.status = 400
        project = traced(tmp_path, collector.url)
        with running(project.project) as server:
            for _ in range(5):
                assert server.predict([ROW]).status_code == 200
            server.wait_for(lambda: count_of(server, "dropped") == 5)
            server.wait_for(lambda: "does not take traces" in server.log.read_text())
            assert f"{collector.url}/v1/traces" in server.log.read_text()
            collector.status = 200
            assert server.predict([ROW]).status_code == 200
            assert len(collector.traces(1)) == 1
            server.wait_for(lambda: count_of(server, "sent") == 1)  # once it has the answer
            assert count_of(server, "dropped") == 5
            assert server.stop() == 0
            assert server.log.read_text().count("does not take traces") == 1


def test_the_server_ends_though_nobody_takes_its_traces(tmp_path: Path) -> None:
    """Nothing listens where they go."""
    project = traced(tmp_path, "http://127.0.0.1:9")
    with running(project.project) as server:
        assert server.predict([ROW]).status_code == 200
        assert server.stop() == 0


WITHOUT = """
import os, sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("opentelemetry.exporter"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nothing())
from serving.__main__ import main
sys.exit(main(["--project", sys.argv[1]], os.environ))
"""


def test_what_is_not_installed_is_told(tmp_path: Path) -> None:
    """By the command that installs it; without traces nothing of it is needed."""
    project = make_project(tmp_path, '[serving]\ntraces = "http://127.0.0.1:4318"\n')
    command = [sys.executable, "-c", WITHOUT, str(project.project)]
    environ = os.environ | {"HOMEOSTAT_SERVING_PORT": "0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ)
    assert done.returncode == 1
    assert "serving.traces: OpenTelemetry is not installed" in done.stderr
    assert "pip install 'homeostat[otel]'" in done.stderr
    program = (
        "import sys, serving.processes.server; "
        "print(bool({'opentelemetry.sdk', 'opentelemetry.exporter'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
