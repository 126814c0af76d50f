"""Whose requests a door begins a trace for."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from words_kit import Served, load_words

from homeostat.auth import Keyring, Limit, Scope, new_key
from homeostat.errors import HomeostatError
from homeostat.model_runtime.contract import LoadedModel
from serving.doors.predict_door import PredictDoor
from serving.requests.limits import Buckets
from serving.requests.problem import problem_of
from serving.tracing.door import TracedDoor
from serving.tracing.trace import Trace
from serving.tracing.tracing import Tracing

BODY = json.dumps({"rows": [[1, 2]]}).encode()
FORCED = b"00-%032x-%016x-01" % (1, 1)
LIMITED, KEY = new_key("limited", frozenset([Scope.PREDICT]), Limit(0.01, 1))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_words(tmp_path_factory.mktemp("words"))


def tracing(share: float) -> tuple[Tracing, list[Trace]]:
    found: list[Trace] = []
    return Tracing(share, found.append, time.time_ns, lambda: 0.5), found


def headers(token: str, traceparent: bytes = FORCED) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {token}".encode()), (b"traceparent", traceparent)]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nobody_forces_traces_who_may_not_ask(
    tmp_path: Path, loaded: LoadedModel, share: float
) -> None:
    """Neither without a key nor past the limit of one: of those the usual share is traced."""
    traces, found = tracing(share)
    served = Served(tmp_path, tracing=traces)
    served.model.keys = Keyring((KEY,), Buckets(time.monotonic).charge)
    door = TracedDoor(PredictDoor(served.model), "/predict", traces)

    async def status_of(token: str) -> int:
        try:
            await door.answer(BODY, door.admit(headers(token)))
        except HomeostatError as error:
            return problem_of(error).status
        return 200

    async def work() -> None:
        served.serve(loaded)
        assert [await status_of(token) for token in ("wrong", LIMITED, LIMITED)] == [401, 200, 429]

    served.run(work)
    kinds = [each.error for each in found]
    assert kinds == ([None] if not share else ["unauthorized", None, "too-many-requests"])


def test_a_request_is_no_part_of_the_one_before_it(tmp_path: Path, loaded: LoadedModel) -> None:
    """Though it begins where that one was answered."""
    traces, found = tracing(0.0)
    served = Served(tmp_path, tracing=traces)
    door = TracedDoor(PredictDoor(served.model), "/predict", traces)

    async def work() -> None:
        served.serve(loaded)
        before = traces.begin("POST /predict", {}, FORCED)
        assert before is not None
        with traces.looking_at(before):
            answer = door.answer(BODY, door.admit([]))
        assert await answer
        assert (before.model, before.rows) == ("", 0)

    served.run(work)
    assert found == []
