"""Calls over gRPC that are refused: before they cost anything, and counted."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from http2_kit import Raw
from prometheus_client.parser import text_string_to_metric_families
from serving_kit import MODEL, Server, add_version, make_project, publish, running

from homeostat.auth import Scope, add_key, new_key
from homeostat.settings import Settings
from serving.http2 import frames
from serving.http2.connection import MOST_CALLS
from serving.http2.frames import frame

SERVICE = "/inference.GRPCInferenceService/"
INFER = f"{SERVICE}ModelInfer"
OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, EXHAUSTED, UNAUTHENTICATED = "0", "3", "4", "8", "16"
PROJECT = """
[serving]
grpc_port = 0
max_body = "200KB"
"""
IMPATIENT = PROJECT + 'arrive_within = "2s"\n'
UNREADABLE = b"\xff" * 10
PATIENCE = 20.0
Refused = Callable[[Raw], str]


def port_of(project: Settings) -> int:
    address = json.loads((project.home / "serving.json").read_text())["grpc"]
    return int(address.rpartition(":")[2])


def value(server: Server, name: str, **labels: str) -> float:
    text = server.http.get("/metrics").text
    samples = (each for family in text_string_to_metric_families(text) for each in family.samples)
    return sum(each.value for each in samples if each.name == name and each.labels == labels)


def counted(server: Server, status: int, kind: str, model: str = MODEL) -> tuple[float, float]:
    """Of requests and of errors."""
    requests = value(server, "homeostat_requests_total", model=model, code=str(status))
    return requests, value(server, "homeostat_errors_total", model=model, kind=kind)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    project = make_project(tmp_path_factory.mktemp("refusals") / "project", PROJECT)
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    return project


@pytest.fixture(scope="module")
def server(project: Settings) -> Iterator[Server]:
    with running(project.project) as server:
        yield server


def too_large(raw: Raw) -> str:
    raw.head(1, INFER)
    for _ in range(30):
        raw.sendall(frame(frames.DATA, 0, 1, bytes(10_000)))
    return raw.status()


def too_much(raw: Raw) -> str:
    """More that is not whole than four of the largest messages."""
    for stream in range(1, 11, 2):
        raw.head(stream, INFER)
        raw.sendall(frame(frames.DATA, 0, stream, struct.pack(">BI", 0, 190_000)))
        for _ in range(18):
            raw.sendall(frame(frames.DATA, 0, stream, bytes(10_000)))
    return raw.status()


def too_many(raw: Raw) -> str:
    for stream in range(1, 2 * MOST_CALLS + 2, 2):
        raw.head(stream, INFER)
    raw.next(frames.RST_STREAM)
    return EXHAUSTED  # there is no status: clients make such a call again


def too_slow(raw: Raw) -> str:
    raw.head(1, INFER)
    return raw.status()


def unreadable(raw: Raw) -> str:
    return at_once(raw, struct.pack(">BI", 0, len(UNREADABLE)) + UNREADABLE)


def no_message(raw: Raw) -> str:
    return at_once(raw, b"")


def at_once(raw: Raw, data: bytes) -> str:
    """The whole call in one piece, which is never too slow."""
    head = frame(frames.HEADERS, frames.END_HEADERS, 1, raw.headers(INFER))
    raw.sendall(head + frame(frames.DATA, frames.END_STREAM, 1, data))
    return raw.status()


@pytest.mark.parametrize(
    ("refused", "code", "status"),
    [
        (too_large, EXHAUSTED, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        (too_much, EXHAUSTED, HTTPStatus.TOO_MANY_REQUESTS),
        (too_many, EXHAUSTED, HTTPStatus.TOO_MANY_REQUESTS),
        (no_message, INVALID_ARGUMENT, HTTPStatus.BAD_REQUEST),
        (unreadable, INVALID_ARGUMENT, None),
    ],
)
def test_what_is_refused_is_counted(
    server: Server, project: Settings, refused: Refused, code: str, status: HTTPStatus | None
) -> None:
    """By status and by kind, whoever refuses it."""
    check_counted(server, project, refused, code, status)


def test_what_is_too_slow_is_counted(tmp_path: Path) -> None:
    """By a server that gives it two seconds, of which nothing else is asked."""
    project = make_project(tmp_path, IMPATIENT)
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    with running(project.project) as server:
        status = HTTPStatus.REQUEST_TIMEOUT
        check_counted(server, project, too_slow, DEADLINE_EXCEEDED, status)


def check_counted(
    server: Server, project: Settings, refused: Refused, code: str, status: HTTPStatus | None
) -> None:
    number = 400 if status is None else int(status)
    kind = "invalid-input" if status is None else status.phrase.lower().replace(" ", "-")
    before = counted(server, number, kind)
    with Raw(port_of(project)) as raw:
        raw.begin()
        assert refused(raw) == code
    assert [new - old for new, old in zip(counted(server, number, kind), before, strict=True)] == [
        1,
        1,
    ]


def test_connections_and_calls_are_shown(server: Server, project: Settings) -> None:
    """Beside those of HTTP, of which there is the one that asks."""

    def shown() -> tuple[float, float]:
        names = ("homeostat_connections", "homeostat_in_flight_requests")
        connections, in_flight = (value(server, name) for name in names)
        return connections, in_flight

    def wait_for(expected: tuple[float, float]) -> None:
        deadline = time.monotonic() + PATIENCE
        while shown() != expected:
            assert time.monotonic() < deadline, shown()
            time.sleep(0.05)

    wait_for((1, 1))
    with Raw(port_of(project)) as raw, Raw(port_of(project)) as other:
        for each in (raw, other):
            each.begin()
        for stream in range(1, 7, 2):
            raw.head(stream, INFER)
        wait_for((3, 4))
    wait_for((1, 1))


def test_a_key_is_asked_for_before_a_message(tmp_path: Path) -> None:
    """Who has none is told at once, counted, and nothing that he sends is kept; what needs no key
    takes short messages alone."""
    project = make_project(tmp_path, PROJECT)
    publish(project, add_version(project, 1, runtime="onnx"), epoch=1)
    token, key = new_key("app", frozenset([Scope.PREDICT]))
    add_key(project.keys_path, key)
    with running(project.project, headers={"authorization": f"Bearer {token}"}) as server:
        for given in ({}, {"authorization": "Bearer hsk_wrong"}):
            with Raw(port_of(project)) as raw:
                raw.begin()
                raw.head(1, INFER, **given)
                assert raw.status() == UNAUTHENTICATED  # of a call that has sent no message yet
                raw.head(3, f"{SERVICE}ServerLive")
                raw.message(3, b"")
                assert raw.status() == OK
                raw.head(5, f"{SERVICE}ServerLive")
                for _ in range(7):
                    raw.sendall(frame(frames.DATA, 0, 5, bytes(10_000)))
                assert raw.status() == EXHAUSTED
        with Raw(port_of(project)) as raw:
            raw.begin()
            raw.head(1, INFER, authorization=f"Bearer {token}")
            raw.message(1, UNREADABLE)
            assert raw.status() == INVALID_ARGUMENT
        assert counted(server, 401, "unauthorized") == (2, 2)


def test_what_names_no_model_is_counted_too(tmp_path: Path) -> None:
    """Where there are several, for none of them. How long one may take to arrive is the first's."""
    first = make_project(tmp_path / "first", IMPATIENT)
    second = make_project(tmp_path / "second", model="other")
    for each in (first, second):
        publish(each, add_version(each, 1, runtime="onnx"), epoch=1)
    with running(first.project, second.project) as server:
        with Raw(port_of(first)) as raw:
            raw.begin()
            assert too_slow(raw) == DEADLINE_EXCEEDED
        for refused in (unreadable, no_message):
            with Raw(port_of(first)) as raw:
                raw.begin()
                assert refused(raw) == INVALID_ARGUMENT
        assert counted(server, 400, "invalid-input", "(unknown)") == (2, 1)
        assert counted(server, 400, "bad-request", "(unknown)") == (2, 1)
        assert counted(server, 400, "invalid-input") == (0, 0)

        for path in ("/predict", "/models/nobody/predict", "/v2/models/nobody/infer"):
            assert server.http.post(path, json={"rows": []}).status_code == 404
        for path in ("/invocations", "/models/nobody/invocations"):
            answer = server.http.post(path, json={"inputs": []})
            assert (answer.status_code, set(answer.json())) == (404, {"error_code", "message"})
            assert answer.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
            assert MODEL in answer.json()["message"]
            assert answer.headers["content-type"] == "application/json"
        assert counted(server, 404, "not-found", "(unknown)") == (5, 5)
