"""What the OpenAPI page says may be asked is asked, in many ways: no answer is our fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import BaseSchema
from serving_kit import Server, add_version, make_project, publish, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    project = make_project(tmp_path_factory.mktemp("openapi") / "project")
    publish(project, add_version(project, 1), epoch=1)
    with running(project.project) as server:
        yield server


@pytest.fixture(scope="module")
def described(server: Server) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_nothing_that_is_described_makes_the_server_fail(
    server: Server, described: BaseSchema, mode: GenerationMode
) -> None:
    """Right and wrong bodies of every path that takes one: each is answered, none with a 5xx."""
    asked: Counter[str] = Counter()
    for found in described.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()

        @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Case[Any]) -> None:
            answer = case.call(timeout=30)
            asked[case.operation.path] += 1
            assert answer.status_code < 500, (case.as_curl_command(), answer.text)

        if operation.body or mode is GenerationMode.POSITIVE:
            ask()
    assert asked["/predict"] >= 30
    assert asked["/labels"] >= 30
    assert server.predict([[1.0, 2.0, 3.0, 4.0]]).status_code == 200


def test_every_door_is_described(server: Server) -> None:
    """A door that is not on the page is not asked either."""
    paths = server.http.get("/openapi.json").json()["paths"]
    assert {"/predict", "/labels", "/models", "/metrics", "/health/ready"} <= set(paths)
    assert {"/invocations", "/v2/models/{name}/infer", "/v2/models/{name}"} <= set(paths)


def test_only_answers_that_come_are_described(server: Server) -> None:
    """What is wrong with rows is a 422 at the server's own doors alone; a flush needs a key."""
    described = server.http.get("/openapi.json").json()
    answers = {
        path: set(operation["responses"])
        for path, operations in described["paths"].items()
        for operation in operations.values()
    }
    with_422 = {path for path, statuses in answers.items() if "422" in statuses}
    assert with_422 == {path for path in answers if path.endswith(("/predict", "/labels"))}
    assert answers["/models/{name}/flush"] == {"200", "401", "403", "404", "503"}
    assert "HTTPValidationError" not in str(described)
