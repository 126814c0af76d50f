"""Which version answers: the champion, one on trial, one by its name; the same for a key."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from words_kit import Answers, Served, all_well, load_words, ref_of

from homeostat.model_runtime.contract import LoadedModel
from homeostat.records import Rollout, Trial, TrialKind, VersionRef
from serving.doors.rest_door import InferDoor
from serving.open_inference.signature import TENSOR
from serving.requests.asked import Asked
from serving.requests.forms import Reply
from serving.requests.problem import Refused
from serving.rules.routing import Role, hash_of, route

REF = VersionRef(version="2", digest="d")
KEYS = [f"user {number}" for number in range(4000)]
shares = st.floats(0, 1)
kinds = st.sampled_from(TrialKind)
keys = st.text(min_size=1, max_size=20)


def rollout(share: float | None, kind: TrialKind = TrialKind.CANARY, model: str = "m") -> Rollout:
    trial = None if share is None else Trial(version=REF, kind=kind, share=share)
    return Rollout(model=model, epoch=1, champion=REF, trial=trial, created_at=datetime.now(UTC))


@given(keys, shares, kinds, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_key_stays_where_it_is(
    key: str, share: float, kind: TrialKind, one: int, two: int
) -> None:
    """Whatever the ids of its requests are."""
    assert route(rollout(share, kind), key, one) is route(rollout(share, kind), key, two)


@given(keys, shares, shares, kinds, st.integers(0, 2**64 - 1))
def test_a_greater_share_moves_nobody_away_from_the_trial(
    key: str, one: float, two: float, kind: TrialKind, id_hash: int
) -> None:
    """Raising the share moves only what it must, with a key and without."""
    low, high = sorted((one, two))
    for given_key in (key, None):
        if route(rollout(low, kind), given_key, id_hash) is not Role.CHAMPION:
            assert route(rollout(high, kind), given_key, id_hash) is not Role.CHAMPION


@given(st.none() | keys, kinds, st.integers(0, 2**64 - 1))
def test_none_all_and_no_trial(key: str | None, kind: TrialKind, id_hash: int) -> None:
    """The ends of the share are exact; a shadow never answers."""
    assert route(rollout(None), key, id_hash) is Role.CHAMPION
    assert route(rollout(0, kind), key, id_hash) is Role.CHAMPION
    all_of_it = Role.SHADOW if kind is TrialKind.SHADOW else Role.CHALLENGER
    assert route(rollout(1, kind), key, id_hash) is all_of_it


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_a_share_of_the_keys_is_that_share(share: float) -> None:
    """And of the requests without one; another model's trial meets other keys."""
    on_trial = {key for key in KEYS if route(rollout(share), key, 0) is Role.CHALLENGER}
    elsewhere = {key for key in KEYS if route(rollout(share, model="n"), key, 0) is Role.CHALLENGER}
    by_chance = [route(rollout(share), None, hash_of(key, "m")) for key in KEYS]
    assert len(on_trial) / len(KEYS) == pytest.approx(share, abs=0.03)
    assert by_chance.count(Role.CHALLENGER) / len(KEYS) == pytest.approx(share, abs=0.03)
    assert len(on_trial & elsewhere) / len(KEYS) == pytest.approx(share * share, abs=0.03)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[int, LoadedModel]:
    folder = tmp_path_factory.mktemp("words")
    return {number: load_words(folder, number) for number in (1, 2, 3)}


def a_trial(loaded: LoadedModel, kind: TrialKind, share: float) -> tuple[LoadedModel, Trial]:
    return loaded, Trial(version=ref_of(loaded), kind=kind, share=share)


def test_a_canary_answers_its_share_and_says_so(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """Every key always by the same version; the answers, the log and the metrics agree."""
    served = Served(tmp_path)
    people = KEYS[:60]

    async def work() -> list[dict[str, str]]:
        served.serve(loaded[1], trial=a_trial(loaded[2], TrialKind.CANARY, 0.5))
        rounds = []
        for _ in range(3):
            said = [all_well(await served.ask([[1, 2]], keys=[key]))[0] for key in people]
            rounds.append({key: each["version"] for key, each in zip(people, said, strict=True)})
        return rounds

    first, *later = served.run(work)
    assert later == [first, first]
    by_trial = sorted(key for key, version in first.items() if version == "2")
    assert 15 < len(by_trial) < 45
    assert served.logged("distinct key, version, role") == sorted(
        (key, version, "challenger" if version == "2" else "champion")
        for key, version in first.items()
    )
    rows = served.count("homeostat_role_rows_total", version="2", role="challenger")
    assert rows == 3 * len(by_trial)


def test_a_request_is_answered_by_one_version(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """Its first key decides for all its rows."""
    served = Served(tmp_path)
    rows = [[1, 2], [3, 4], [5, 6]]

    async def work() -> list[tuple[str, str]]:
        served.serve(loaded[1], trial=a_trial(loaded[2], TrialKind.AB, 0.5))
        found = []
        for one, other in zip(KEYS[:20], KEYS[20:40], strict=True):
            [together] = all_well(await served.ask(rows, keys=[None, one, other]))
            [alone] = all_well(await served.ask([[1, 2]], keys=[one]))
            found.append((together["version"], alone["version"]))
        return found

    found = served.run(work)
    assert all(together == alone for together, alone in found)
    assert {alone for _, alone in found} == {"1", "2"}


def test_a_shadow_is_logged_beside_the_answer_and_told_to_nobody(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """Under the id of the answer it shadows; no answer is another for it."""
    served = Served(tmp_path)

    async def work() -> list[dict[str, Any]]:
        served.serve(loaded[1], trial=a_trial(loaded[2], TrialKind.SHADOW, 1.0))
        answers = [*await served.ask([[1, 2]], [[3, 4], [5, 6]]), *await served.ask([[7, 8]])]
        while served.count("homeostat_role_rows_total", role="shadow") < 4:
            await asyncio.sleep(0.001)
        return all_well(answers)

    answers = served.run(work)
    assert {answer["version"] for answer in answers} == {"1"}
    ids = [each for answer in answers for each in answer["ids"]]
    assert served.logged("prediction_id, version, role") == sorted(
        [(each, "1", "champion") for each in ids] + [(each, "2", "shadow") for each in ids]
    )
    assert served.count("homeostat_rows_total") == 4  # what nobody got is not counted as served
    assert served.count("homeostat_shadow_dropped_rows_total") == 0


def test_a_shadow_gets_what_is_left_over(tmp_path: Path, loaded: dict[int, LoadedModel]) -> None:
    """Beyond its own small queue its rows are dropped and counted; every answer goes out."""
    served = Served(tmp_path, serving="shadow_rows = 3")

    async def work() -> Answers:
        served.serve(loaded[1], trial=a_trial(loaded[2], TrialKind.SHADOW, 1.0))
        answers = await served.ask(*[[[1, 2]]] * 20)
        dropped = "homeostat_shadow_dropped_rows_total"
        while served.count("homeostat_role_rows_total", role="shadow") + served.count(dropped) < 20:
            await asyncio.sleep(0.001)
        return answers

    answers = served.run(work)
    assert all(isinstance(answer, dict) for answer in answers)
    shadowed = served.count("homeostat_role_rows_total", role="shadow")
    assert shadowed + served.count("homeostat_shadow_dropped_rows_total") == 20
    assert 0 < shadowed < 20


def test_what_fails_in_a_shadow_fails_nobody(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """Its rows are counted as dropped."""
    served = Served(tmp_path)
    knows_less = load_words(tmp_path / "less", 4, words=10)

    async def work() -> Answers:
        served.serve(
            load_words(tmp_path / "more", 5, words=20),
            trial=a_trial(knows_less, TrialKind.SHADOW, 1.0),
        )
        answers = await served.ask([[1, 15]])
        while not served.count("homeostat_shadow_dropped_rows_total"):
            await asyncio.sleep(0.001)
        return answers

    [answer] = all_well(served.run(work))
    assert answer["version"] == "5"
    assert served.logged("version, role") == [("5", "champion")]


def test_a_version_is_asked_by_its_name(tmp_path: Path, loaded: dict[int, LoadedModel]) -> None:
    """The one that serves, the one before, the one on trial; another is refused with their list."""
    served = Served(tmp_path)

    async def work() -> list[str]:
        served.serve(loaded[2], previous=loaded[1], trial=a_trial(loaded[3], TrialKind.CANARY, 0.0))
        said = [all_well(await served.ask([[1, 2]], name=name))[0] for name in ("1", "2", "3")]
        with pytest.raises(
            Refused, match="version 4 of words is not in memory; those that are: 2, 1, 3"
        ):
            served.submit([[1, 2]], name="4")
        return [each["version"] for each in said]

    assert served.run(work) == ["1", "2", "3"]
    assert served.logged("version, role") == [
        ("1", "previous"),
        ("2", "champion"),
        ("3", "challenger"),
    ]


def test_a_trial_that_takes_something_else_is_asked_by_name_alone(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """Requests for the champion are none for it; the problem is told."""
    served = Served(tmp_path)
    other = load_words(tmp_path / "other", 4, features=("first", "third"))

    async def work() -> list[str]:
        served.serve(loaded[1], trial=a_trial(other, TrialKind.CANARY, 1.0))
        assert "is asked by name alone" in str(served.model.trial_problem)
        said = [*await served.ask([[1, 2]]), *await served.ask([[1, 2]], name="4")]
        return [each["version"] for each in all_well(said)]

    assert served.run(work) == ["1", "4"]


def test_the_version_on_trial_becomes_the_champion(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """Without being loaded again, and a trial that is over leaves."""
    served = Served(tmp_path)

    async def work() -> None:
        served.serve(loaded[1], trial=a_trial(loaded[2], TrialKind.CANARY, 0.1))
        on_trial = served.model.trial
        assert on_trial is not None
        assert served.model.plain is None
        promoted = rollout(None)
        served.model.swap(on_trial, promoted)
        swapped = served.model
        assert swapped.current is on_trial
        assert swapped.trial is None
        assert swapped.plain is on_trial
        assert [each.ref.version for each in swapped.versions] == ["2", "1"]
        assert all_well(await served.ask([[1, 2]]))[0]["version"] == "2"

    served.run(work)


def test_the_protocol_goes_where_the_rollout_says(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """As every door does."""
    served = Served(tmp_path)
    tensor = {"name": TENSOR, "datatype": "INT64", "shape": [1, 2], "data": [1, 2]}

    async def work() -> str:
        served.serve(loaded[1], trial=a_trial(loaded[2], TrialKind.CANARY, 1.0))
        door = InferDoor(served.model)
        told = await door.answer(json.dumps({"inputs": [tensor]}).encode(), door.admit([]))
        assert isinstance(told, Reply)
        version: str = json.loads(told.body)["model_version"]
        return version

    assert served.run(work) == "2"


def test_callers_and_deadlines_reach_the_version_on_trial(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """A deadline holds whichever version a request goes to."""
    served = Served(tmp_path)

    async def work() -> None:
        served.serve(loaded[1], trial=a_trial(loaded[2], TrialKind.CANARY, 1.0))
        late = served.submit([[1, 2]], Asked("", asyncio.get_running_loop().time() - 1))
        with pytest.raises(Refused) as refused:
            await late
        assert refused.value.status == 504

    served.run(work)
    assert served.count("homeostat_role_rows_total") == 0
