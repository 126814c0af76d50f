"""Predictions, labels, metrics and the journal of a server, over HTTP."""

from __future__ import annotations

import json
import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_kit import (
    CLASSES,
    FEATURES,
    MODEL,
    Network,
    Server,
    add_version,
    make_project,
    publish,
    running,
)

from homeostat.client import Client
from homeostat.errors import InputError
from homeostat.identifiers import milliseconds_of
from homeostat.journal.reader import Journal
from homeostat.metrics import METRICS
from homeostat.records import Task
from homeostat.settings import Settings

PROJECT = """
[serving]
embedding = "encoder"
max_body = "64KB"
max_queued_rows = 2000
"""
NETWORK = Network(1)
ROW = [1.0, 2.0, 3.0, 4.0]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    project = make_project(tmp_path_factory.mktemp("serving") / "project", PROJECT)
    publish(project, add_version(project, 1), epoch=1)
    return project


@pytest.fixture(scope="module")
def server(project: Settings) -> Iterator[Server]:
    with running(project.project) as server:
        yield server


def journal(server: Server, project: Settings) -> list[dict[str, Any]]:
    """Every row of the journal, after a flush."""
    assert server.http.post(f"/models/{MODEL}/flush").status_code == 200
    now = datetime.now(UTC)
    reader = Journal(project.journal_path, MODEL, Task.CLASSIFICATION)
    hour = timedelta(hours=1)
    rows = reader.window(now - hour, now + hour, FEATURES, embedding=True)
    found: list[dict[str, Any]] = rows.to_pylist()
    return found


def received(server: Server) -> int:
    return int(server.http.post(f"/models/{MODEL}/flush").json()["received"])


def stored_labels(server: Server) -> list[str]:
    lines = server.http.get("/metrics").text.splitlines()
    return [line for line in lines if line.startswith("homeostat_labels_total{")]


def random_rows(count: int, seed: int) -> list[list[float]]:
    source = random.Random(seed)
    return [[source.uniform(-3, 3) for _ in FEATURES] for _ in range(count)]


def test_a_request_may_say_how_long_it_waits(server: Server) -> None:
    """Long enough is answered; what is no time is told, and not taken for none."""
    for seconds, status in (("30", 200), ("soon", 400), ("-1", 400)):
        body, headers = {"rows": [[1.0, 2.0, 3.0, 4.0]]}, {"x-request-timeout": seconds}
        assert server.http.post("/predict", json=body, headers=headers).status_code == status


def test_an_answer_holds_what_the_network_says(server: Server) -> None:
    """Classes, probabilities, version and an id for every row."""
    rows = random_rows(5, seed=1)
    answer = server.predict(rows).json()
    classes, probabilities = NETWORK.expected(rows)
    assert (answer["model"], answer["version"]) == (MODEL, "1")
    assert answer["predictions"] == classes
    assert answer["classes"] == list(CLASSES)
    for given_row, expected_row in zip(answer["probabilities"], probabilities, strict=True):
        assert given_row == pytest.approx(expected_row, abs=1e-5)
    assert len(set(answer["ids"])) == 5
    assert all(milliseconds_of(identifier) for identifier in answer["ids"])


def test_a_row_may_be_flat_nested_or_named(server: Server) -> None:
    """All three ways to write a row mean the same, also within one request."""
    flat, nested = ROW, [ROW[:2], ROW[2:]]
    named = dict(zip(reversed(FEATURES), reversed(ROW), strict=True))
    answers = [
        server.predict(rows).json()["probabilities"]
        for rows in ([flat] * 2, [nested] * 2, [named] * 2, [flat, named], [named, nested])
    ]
    assert all(answer == answers[0] for answer in answers)


def test_own_ids_come_back(server: Server) -> None:
    """A caller's ids are kept as they are."""
    assert server.predict([ROW, ROW], ids=["a", "b/ö"]).json()["ids"] == ["a", "b/ö"]


def test_callers_at_the_same_time_get_what_they_get_alone(server: Server) -> None:
    """Batching across callers mixes nobody's rows up."""
    requests = [random_rows(1 + seed % 4, seed) for seed in range(120)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(server.predict, requests))
    for rows, answer in zip(requests, answers, strict=True):
        classes, probabilities = NETWORK.expected(rows)
        assert answer.json()["predictions"] == classes
        assert answer.json()["probabilities"][0] == pytest.approx(probabilities[0], abs=1e-5)


BAD_ROWS = [
    ([], None, "rows"),
    ({"0": ROW}, None, "rows"),
    (None, None, "rows"),
    ([ROW, 5], 1, None),
    ([ROW, ROW[:3]], 1, None),
    ([ROW, [*ROW, 1.0]], 1, None),
    ([ROW, []], 1, None),
    ([ROW, [1.0, None, 2.0, 3.0]], 1, "height"),
    ([ROW, ROW, [1.0, 2.0, "3", 4.0]], 2, "weight"),
    ([[1.0, 2.0, 3.0, True]], 0, "shine"),
    ([[1.0, 2.0, 3.0, 1e39]], 0, "shine"),
    ([[1.0, 2.0, 3.0, 10**400]], 0, "shine"),
    ([[1.0, 2.0, [3.0], 4.0]], 0, "weight"),
    ([[[1.0, 2.0], [3.0]]], 0, None),
    ([[[1.0, 2.0], [3.0, None]]], 0, "shine"),
    ([{"width": 1, "height": 2, "weight": 3}], 0, "shine"),
    ([dict.fromkeys((*FEATURES, "colour"), 1.0)], 0, "colour"),
    ([ROW, dict.fromkeys(FEATURES, None)], 1, "width"),
]


@pytest.mark.parametrize(("rows", "row", "field"), BAD_ROWS)
def test_bad_rows_are_named(
    server: Server, rows: object, row: int | None, field: str | None
) -> None:
    """The answer says which row and which field, and nothing is logged."""
    before = received(server)
    answer = server.predict(rows)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["row"], problem["field"]) == (row, field)
    assert {"type", "title", "status", "detail"} <= problem.keys()
    assert received(server) == before


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_json_does_not_know_are_named(server: Server, number: str) -> None:
    """What lenient encoders write is refused with its place, not as a syntax error."""
    body = f'{{"rows": [[1, 2, 3, 4], [1, {number}, 3, 4]]}}'
    answer = server.http.post("/predict", content=body)
    assert answer.status_code == 422
    assert (answer.json()["row"], answer.json()["field"]) == (1, "height")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"rows",
        b"{",
        b'{"rows": [[1, 2, 3, 4]]',
        b"\xff\xfe",
        b"[" * 20_000,
        b'{"rows":"\xff"}',
    ],
)
def test_what_is_not_json_is_said_to_be_so(server: Server, body: bytes) -> None:
    """Status 400, as problem+json."""
    answer = server.http.post("/predict", content=body)
    assert answer.status_code == 400
    assert answer.json()["title"] == "Bad Request"


@pytest.mark.parametrize(
    ("path", "headers", "status", "says"),
    [
        ("/predict", {"content-encoding": "gzip"}, 415, "not compressed"),
        ("/invocations", {"content-encoding": "gzip"}, 415, "not compressed"),
        ("/labels", {"content-encoding": "gzip"}, 415, "not compressed"),
        ("/predict", {"content-type": "text/csv; charset=utf-8"}, 415, "not text/csv"),
        ("/labels", {"content-type": "text/csv"}, 415, "not text/csv"),
        ("/predict", {"content-type": "application/json; charset=utf-8"}, 400, "not JSON"),
        ("/predict", {"content-type": "application/x-www-form-urlencoded"}, 400, "not JSON"),
    ],
)
def test_why_a_body_is_not_json_is_told_where_its_headers_say_it(
    server: Server, path: str, headers: dict[str, str], status: int, says: str
) -> None:
    """Compressed, or of another type; curl names one whatever it sends."""
    answer = server.http.post(path, content=b"width,height\n", headers=headers)
    assert answer.status_code == status, answer.text
    assert says in answer.text


def test_a_body_that_is_json_needs_no_headers_that_say_so(server: Server) -> None:
    """As curl sends it; and one that is empty is said to be so."""
    body = json.dumps({"rows": [ROW]}).encode()
    for kind in ("application/x-www-form-urlencoded", "text/plain"):
        answer = server.http.post("/predict", content=body, headers={"content-type": kind})
        assert answer.status_code == 200, answer.text
    for path, member in (("/predict", '"rows"'), ("/labels", '"labels"'), ("/invocations", "")):
        message = server.http.post(path, content=b"", headers={"content-type": "application/json"})
        assert message.status_code == 400
        text = message.json().get("detail") or message.json()["message"]
        assert "the body is empty" in text
        assert member in text


@pytest.mark.parametrize(
    ("ids", "row"),
    [
        (["a"], None),
        (["a", "a"], 1),
        (["a", ""], 1),
        (["a", 5], 1),
        (["x" * 129, "b"], 0),
        ("ab", None),
    ],
)
def test_bad_ids_are_refused(server: Server, ids: object, row: int | None) -> None:
    """Ids are unique strings of reasonable length, one a row."""
    answer = server.predict([ROW, ROW], ids=ids)
    assert answer.status_code == 422
    assert (answer.json()["row"], answer.json()["field"]) == (row, "ids")


def test_an_unknown_member_is_refused(server: Server) -> None:
    """A misspelt member is told, rather than ignored."""
    answer = server.predict([ROW], idz=["a"])
    assert (answer.status_code, answer.json()["field"]) == (422, "idz")


@pytest.mark.parametrize("size", [70_000, 120_000, 3_000_000])
def test_an_oversized_body_is_refused(server: Server, size: int) -> None:
    """With 413 whether its length was announced or not."""
    body = b'{"rows": [' + b" " * size + b"]}"
    assert server.http.post("/predict", content=body).status_code == 413
    if size < 128_000:  # past twice the limit the connection is closed on who goes on sending
        pieces = (body[i : i + 10_000] for i in range(0, len(body), 10_000))
        assert server.http.post("/predict", content=pieces).status_code == 413


def test_more_rows_than_may_wait_are_too_many(server: Server) -> None:
    """A request that could never be queued is told so, not to come again."""
    assert server.predict([[1, 2, 3, 4]] * 2001).status_code == 413


def test_bad_callers_do_not_harm_good_ones(server: Server) -> None:
    """Amid broken requests every sound one gets its answer."""
    stop = threading.Event()

    def spoil() -> None:
        while not stop.is_set():
            assert server.predict([ROW, [1, None, 3, 4]]).status_code == 422

    with ThreadPoolExecutor(4) as pool:
        spoilers = [pool.submit(spoil) for _ in range(3)]
        answers = [server.predict([ROW]) for _ in range(60)]
        stop.set()
        for spoiler in spoilers:
            spoiler.result()
    assert {answer.status_code for answer in answers} == {200}


VALID = json.dumps({"rows": [ROW, dict(zip(FEATURES, ROW, strict=True))], "ids": ["a", "b"]})


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.integers(0, len(VALID)),
    length=st.integers(0, 12),
    insert=st.one_of(
        st.binary(max_size=6),
        st.sampled_from(
            [b"null", b"1e999", b"NaN", b'"\\ud800"', b"[[", b"{}", b"9" * 400, b"-", b'"rows":']
        ),
    ),
)
def test_no_body_makes_the_server_fail(
    server: Server, start: int, length: int, insert: bytes
) -> None:
    """Mutated bodies are answered with 200 or 4xx, never 5xx; those that begin as an image does,
    with what is wrong about it."""
    valid = VALID.encode()
    answer = server.http.post("/predict", content=valid[:start] + insert + valid[start + length :])
    assert answer.status_code in (200, 400, 415, 422), answer.text
    assert answer.json()


def test_the_journal_holds_what_was_answered(server: Server, project: Settings) -> None:
    """After a flush every answered row is there with its inputs, outputs and embedding."""
    rows = random_rows(7, seed=7)
    answer = server.predict(rows).json()
    stored = {row["_prediction_id"]: row for row in journal(server, project)}
    for i, identifier in enumerate(answer["ids"]):
        row = stored[identifier]
        assert [row[name] for name in FEATURES] == pytest.approx(rows[i], rel=1e-6)
        assert (row["_version"], row["_prediction"]) == ("1", answer["predictions"][i])
        assert row["_probabilities"] == pytest.approx(answer["probabilities"][i])
        assert len(row["_embedding"]) == 5


def test_labels_reach_their_predictions(server: Server, project: Settings) -> None:
    """Each label is stored with its prediction; the latest wins; an unknown id waits."""
    ids = server.predict([ROW, ROW]).json()["ids"]
    body = {
        "labels": [
            {"id": ids[0], "value": "star", "time": "2026-01-01T00:00:00Z"},
            {"id": ids[0], "value": "circle", "source": "review"},
            {"id": ids[1], "value": 3.0},
            {"id": "nobody", "value": True},
        ]
    }
    answer = server.http.post("/labels", json=body)
    assert (answer.status_code, answer.json()) == (200, {"stored": 4})
    stored = {row["_prediction_id"]: row["_label"] for row in journal(server, project)}
    assert (stored[ids[0]], stored[ids[1]]) == ("circle", "3")
    assert Journal(project.journal_path, MODEL, Task.CLASSIFICATION).pending_labels() == 1


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        (5, None),
        ({"value": 1}, "id"),
        ({"id": "", "value": 1}, "id"),
        ({"id": "x" * 129, "value": 1}, "id"),
        ({"id": "a"}, "value"),
        ({"id": "a", "value": None}, "value"),
        ({"id": "a", "value": [1]}, "value"),
        ({"id": "a", "value": 1, "when": 2}, "when"),
        ({"id": "a", "value": 1, "name": 2}, "name"),
        ({"id": "a", "value": 1, "time": "yesterday"}, "time"),
        ({"id": "a", "value": 1, "time": "2026-01-01T00:00:00"}, "time"),
    ],
)
def test_a_bad_label_is_named(server: Server, entry: object, field: str | None) -> None:
    """The place of the entry and its field; none of the request's labels is stored."""
    body = {"labels": [{"id": "good", "value": 1}, entry]}
    before = stored_labels(server)
    answer = server.http.post("/labels", json=body)
    assert answer.status_code == 422
    assert (answer.json()["row"], answer.json()["field"]) == (1, field)
    assert stored_labels(server) == before


def test_declared_metrics_are_exposed(server: Server) -> None:
    """Every metric the server owns, with what was just done."""
    server.predict([ROW])
    text = server.http.get("/metrics").text
    for metric in METRICS:
        if metric.owner == "server":
            assert f"# TYPE {metric.name.removesuffix('_total')}" in text, metric.name
    for line in (
        f'homeostat_model_info{{model="{MODEL}",version="1"}} 1.0',
        f'homeostat_rollout_epoch{{model="{MODEL}"}} 1.0',
        f'homeostat_requests_total{{code="422",model="{MODEL}"}}',
        f'homeostat_rows_total{{model="{MODEL}",version="1"}}',
        f'homeostat_predictions_total{{class="circle",model="{MODEL}"}}',
    ):
        assert line in text


def values(server: Server) -> dict[str, float]:
    """What every series of /metrics says, by its name; classes together."""
    found: dict[str, float] = defaultdict(float)
    for line in server.http.get("/metrics").text.splitlines():
        if not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name, _, labels = series.partition("{")
            found[name if "class=" in labels else f"{name}{{{labels}"] += float(value)
    return found


def test_metrics_count_every_request_and_row(server: Server) -> None:
    """Also what is only added up between two scrapes."""
    before = values(server)
    for count in (1, 2, 4):
        assert server.predict([ROW] * count).status_code == 200
    assert server.predict([]).status_code == 422
    assert server.http.post("/labels", json={"labels": []}).status_code == 422
    assert server.http.post("/labels", content=b"{").status_code == 400
    assert server.http.post("/models/nobody/predict").status_code == 404
    after = values(server)
    label = f'model="{MODEL}"'
    expected = {
        f'homeostat_requests_total{{code="200",{label}}}': 3,
        f'homeostat_requests_total{{code="422",{label}}}': 1,
        f'homeostat_requests_total{{code="404",{label}}}': 1,
        f'homeostat_errors_total{{kind="invalid-input",{label}}}': 2,
        f'homeostat_errors_total{{kind="bad-request",{label}}}': 1,
        f'homeostat_errors_total{{kind="not-found",{label}}}': 1,
        f"homeostat_request_seconds_count{{{label}}}": 3,
        f'homeostat_request_seconds_bucket{{le="+Inf",{label}}}': 3,
        f"homeostat_compute_seconds_count{{{label}}}": 3,
        f"homeostat_batch_rows_count{{{label}}}": 3,
        f"homeostat_batch_rows_sum{{{label}}}": 7,
        f'homeostat_batch_rows_bucket{{le="1.0",{label}}}': 1,
        f'homeostat_batch_rows_bucket{{le="2.0",{label}}}': 2,
        f'homeostat_batch_rows_bucket{{le="4.0",{label}}}': 3,
        f'homeostat_rows_total{{{label},version="1"}}': 7,
        "homeostat_predictions_total": 7,
        f"homeostat_journal_received_total{{{label}}}": 7,
    }
    assert {name: after[name] - before[name] for name in expected} == expected
    total = f"homeostat_request_seconds_sum{{{label}}}"
    assert after[total] > before[total]


def test_every_other_path_answers_in_kind(server: Server) -> None:
    """Documentation, links and errors of the paths beside predict."""
    assert "/models/{name}/predict" in server.http.get("/openapi.json").json()["paths"]
    assert server.http.get("/docs").status_code == 200
    assert server.http.get("/").json()["documentation"] == "/docs"
    assert server.http.get("/health/live").status_code == 200
    for method, path, status in (
        ("GET", "/predict", 405),
        ("GET", "/nowhere", 404),
        ("POST", "/models/nobody/predict", 404),
        ("POST", "/models/nobody/labels", 404),
    ):
        answer = server.http.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
    assert "send POST" in server.http.get("/predict").json()["detail"]
    assert "/docs shows" in server.http.get("/nowhere").json()["detail"]
    misspelt = {"width": 1, "heigth": 2, "weight": 3, "shine": 4}
    assert 'did you mean "height"?' in server.predict([misspelt]).json()["detail"]


def test_the_client_speaks_for_a_program(server: Server, project: Settings) -> None:
    """Predict, label and flush from Python, with errors that name the place."""
    with Client(server.url) as client:
        assert client.ready()
        answer = client.predict([ROW], ids=["from-client"])
        assert answer.predictions == tuple(NETWORK.expected([ROW])[0])
        client.label(answer.ids[0], "square")
        client.flush()
        with pytest.raises(InputError) as caught:
            client.predict([ROW, [1.0, 2.0, 3.0]])
        assert caught.value.row == 1
    stored = {row["_prediction_id"]: row["_label"] for row in journal(server, project)}
    assert stored["from-client"] == "square"


def test_a_started_server_says_where_it_is(server: Server, project: Settings) -> None:
    """serving.json in the home folder names the address and the process."""
    announced = json.loads((Path(project.home) / "serving.json").read_text())
    assert announced == {"url": server.url, "pid": server.process.pid}
