"""A version that fails is asked no more for a while, and others answer, and say so."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from words_kit import WORDS, Answers, Served, all_well, answered, load_words, ref_of

from homeostat.errors import ModelError
from homeostat.journal.reader import Journal
from homeostat.model_runtime.contract import LoadedModel
from homeostat.records import Task, Trial, TrialKind
from serving.rules.circuit import LEAST, LONGEST_REST, WELL, Limits, Phase, told, tried

LIMITS = Limits(in_a_row=3, share=0.5, rest=5.0)
Batches = list[tuple[int, int, float]]
batches = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 4), st.floats(0, 20)), min_size=1, max_size=40
)


@given(batches)
def test_a_version_that_never_fails_is_always_asked(given_batches: Batches) -> None:
    """And nothing is kept of it."""
    for well, _, now in given_batches:
        assert tried(WELL, LIMITS, now) == (True, WELL)
        assert told(WELL, LIMITS, well, 0, now) == WELL


@given(batches, st.integers(1, 5))
def test_failures_in_a_row_open_it(given_batches: Batches, in_a_row: int) -> None:
    """So many, whatever came before, however long they take; an answer between ends a row."""
    limits = Limits(in_a_row=in_a_row, share=1.0, rest=5.0)
    row, state, now = 0, WELL, 0.0
    for well, failed, pause in given_batches:
        now += pause
        state = told(state, limits, well, failed, now)
        row = 0 if well else row + failed
        assert (state.phase is Phase.OPEN) == (row >= in_a_row)
        if state.phase is Phase.OPEN:
            row, state = 0, WELL


@pytest.mark.parametrize(("failed", "phase"), [(10, Phase.CLOSED), (11, Phase.OPEN)])
def test_a_share_of_failures_opens_it(failed: int, phase: Phase) -> None:
    """Of enough requests within one span of time."""
    state = WELL
    for place in range(LEAST):
        one = int(place % 2 == 0 or place < 2 * (failed - LEAST // 2))
        state = told(state, Limits(in_a_row=0, share=0.5, rest=5.0), 1 - one, one, place / 100)
    assert state.phase is phase


@given(batches)
def test_no_rest_is_cut_short_and_none_is_endless(given_batches: Batches) -> None:
    """One request tries it after its rest; a success closes it, a failure doubles the rest."""
    now, circuit = 0.0, WELL
    for well, failed, pause in given_batches:
        now += pause
        before = circuit
        asks, circuit = tried(circuit, LIMITS, now)
        if before.phase is Phase.OPEN:
            assert asks == (now - before.since >= before.rest)
            assert before.rest <= LONGEST_REST
        if before.phase is Phase.OPEN and asks:
            assert circuit.phase is Phase.HALF_OPEN
            assert tried(circuit, LIMITS, now)[0] is False  # one request alone
            assert told(circuit, LIMITS, 1, 0, now) == WELL
            again = told(circuit, LIMITS, 0, 1, now)
            assert again.phase is Phase.OPEN
            assert again.rest == min(LONGEST_REST, 2 * before.rest)
        circuit = told(circuit, LIMITS, well, failed, now)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[int, LoadedModel]:
    """1 and 3 know twice as many words as 2, which fails on the others."""
    folder = tmp_path_factory.mktemp("words")
    return {number: load_words(folder, number, WORDS * (1 + number % 2)) for number in (1, 2, 3)}


BEGINNING, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
KNOWN, UNKNOWN = [[1, 2]], [[1, WORDS + 5]]
AT_ONCE = 'breaker_errors = 3\nbreaker_rest = "1ms"'
LATER = 'breaker_errors = 3\nbreaker_rest = "1h"'


def test_the_version_before_answers_for_one_that_fails(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """After so many failures in a row; answer, log and metrics say who answered, and that it did
    so instead."""
    served = Served(tmp_path, serving=LATER)

    async def work() -> list[dict[str, Any]]:
        served.serve(loaded[2], previous=loaded[1])
        failed = [(await served.ask(UNKNOWN))[0] for _ in range(3)]
        assert [type(each) for each in failed] == [ModelError] * 3
        assert served.model.plain is None
        return all_well(await served.ask(UNKNOWN, KNOWN))

    answers = served.run(work)
    assert [(each["version"], each["fallback"]) for each in answers] == [("1", True)] * 2
    assert served.logged("version, role") == [("1", "fallback")] * 2
    assert served.count("homeostat_fallback_answers_total", by="version") == 2


def test_a_version_that_answers_again_is_asked_again(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """One request tries it; while it fails, even that one is answered by the version before."""
    served = Served(tmp_path, serving=AT_ONCE)

    async def work() -> list[list[object]]:
        served.serve(loaded[2], previous=loaded[1])
        await served.ask(UNKNOWN, UNKNOWN, UNKNOWN)
        await asyncio.sleep(0.005)
        [still] = all_well(await served.ask(UNKNOWN))
        assert served.count("homeostat_breaker_state", version="2") == 2
        await asyncio.sleep(0.01)
        later = [*await served.ask(KNOWN), *await served.ask(KNOWN)]
        assert served.model.plain is served.model.current
        said = [still, *all_well(later)]
        return [[each["version"], each.get("fallback", False)] for each in said]

    assert served.run(work) == [["1", True], ["2", False], ["2", False]]
    assert served.count("homeostat_breaker_state") == 0


def test_wrong_input_opens_nothing(tmp_path: Path, loaded: dict[int, LoadedModel]) -> None:
    """What callers do wrong says nothing about the version."""
    served = Served(tmp_path, serving=LATER)

    async def work() -> None:
        served.serve(loaded[2], previous=loaded[1])
        for _ in range(10):
            with pytest.raises(Exception, match="row 0"):
                served.submit([["no word", 1]])
        assert all_well(await served.ask(KNOWN))[0]["version"] == "2"

    served.run(work)


def test_a_default_answer_where_no_version_can(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """One for every row, logged as what it is."""
    served = Served(tmp_path, serving=LATER + "\ndefault_answer = '\"star\"'")

    async def work() -> dict[str, Any]:
        served.serve(loaded[2])
        await served.ask(UNKNOWN, UNKNOWN, UNKNOWN)
        [answer] = all_well(await served.ask([*UNKNOWN, *KNOWN]))
        return answer

    answer = served.run(work)
    assert answer["predictions"] == ["star", "star"]
    assert (answer["version"], answer["fallback"]) == ("default", True)
    assert served.logged("prediction, version, role") == [("star", "default", "fallback")] * 2
    assert served.count("homeostat_fallback_answers_total", by="default") == 1
    log = Journal(served.settings.journal_path, "words", Task.CLASSIFICATION)
    window = log.window(BEGINNING, END, ("first", "second"), embedding=True)
    assert window.num_rows == 2  # though no version ever gave probabilities here
    assert log.window(BEGINNING, END, ("first", "second"), versions=["2"]).num_rows == 0


def test_with_nothing_to_fall_back_on_it_is_asked_on(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """It may fail on some rows alone: one caller's must not end the service of all."""
    served = Served(tmp_path, serving=LATER)

    async def work() -> Answers:
        served.serve(loaded[2])
        await served.ask(UNKNOWN, UNKNOWN, UNKNOWN)
        assert served.model.plain is None
        return await served.ask(UNKNOWN, KNOWN)

    failed, answer = served.run(work)
    assert isinstance(failed, ModelError)
    assert isinstance(answer, dict)
    assert (answer["version"], answer.get("fallback", False)) == ("2", False)


def test_the_champion_answers_for_a_canary_that_fails(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """Even where all requests are the canary's."""
    served = Served(tmp_path, serving=LATER)
    trial = Trial(version=ref_of(loaded[2]), kind=TrialKind.CANARY, share=1.0)

    async def work() -> Answers:
        served.serve(loaded[3], previous=loaded[1], trial=(loaded[2], trial))
        await served.ask(UNKNOWN, UNKNOWN, UNKNOWN)
        return await served.ask(UNKNOWN)

    [answer] = all_well(served.run(work))
    assert (answer["version"], answer["fallback"]) == ("3", True)


def test_only_those_answers_say_so_that_should_have_been_anothers(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """Though all wait together for the same version."""
    served = Served(tmp_path, serving=LATER)
    trial = Trial(version=ref_of(loaded[2]), kind=TrialKind.CANARY, share=0.5)
    people = [f"user {number}" for number in range(20)]

    async def work() -> tuple[dict[str, bool], list[dict[str, Any]]]:
        served.serve(loaded[3], trial=(loaded[2], trial))
        before = [all_well(await served.ask(KNOWN, keys=[key]))[0] for key in people]
        on_trial = {key: each["version"] == "2" for key, each in zip(people, before, strict=True)}
        unlucky = next(key for key in people if on_trial[key])
        await served.ask(UNKNOWN, UNKNOWN, UNKNOWN, keys=[unlucky])
        told = [served.submit(KNOWN, keys=[key]) for key in people]
        return on_trial, all_well(await answered(told))

    on_trial, answers = served.run(work)
    assert {each["version"] for each in answers} == {"3"}
    assert [each.get("fallback", False) for each in answers] == list(on_trial.values())
    roles = [role for _, role in served.logged("version, role") if role == "fallback"]
    assert len(roles) == sum(on_trial.values())
