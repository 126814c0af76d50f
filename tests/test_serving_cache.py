"""Equal requests are computed once, answered and logged each on its own."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from words_kit import WORDS, Answers, Served, all_well, answered, load_words

from homeostat.errors import ModelError
from homeostat.model_runtime.contract import LoadedModel, Outputs
from serving.requests.parsing import Rows
from serving.rules.memory import Memory, input_of, size_of

VERSIONS = ("1", "2")
names = st.tuples(st.sampled_from(VERSIONS), st.integers(0, 5).map(lambda n: bytes([n])))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), names, st.integers(1, 5)),
        st.tuples(st.just("get"), names, st.just(0)),
        st.tuples(st.just("forget"), names, st.just(0)),
    ),
    max_size=60,
)


def outputs(rows: int) -> Outputs:
    return Outputs([float(rows)] * rows, None, np.zeros((rows, 100), np.float32))


@given(steps, st.integers(0, 5000))
def test_the_cache_is_a_dictionary_that_forgets_what_was_used_longest_ago(
    given_steps: list[tuple[str, tuple[str, bytes], int]], limit: int
) -> None:
    """Against a plain one; never more bytes than the limit, and they add up."""
    memory, plain = Memory(limit), OrderedDict[tuple[str, bytes], Outputs]()
    hits = misses = 0
    for what, (version, given_input), rows in given_steps:
        key = version, given_input
        if what == "put":
            plain.pop(key, None)
            memory.put(version, given_input, said := outputs(rows))
            if size_of(said) <= limit:
                plain[key] = said
            while sum(map(size_of, plain.values())) > limit:
                plain.popitem(last=False)
        elif what == "get":
            assert memory.get(version, given_input) is plain.get(key)
            if key in plain:
                plain.move_to_end(key)
                hits += 1
            else:
                misses += 1
        else:
            memory.forget(version)
            for each in [each for each in plain if each[0] == version]:
                del plain[each]
        assert memory.bytes == sum(map(size_of, plain.values())) <= limit
    assert (memory.hits, memory.misses) == (hits, misses)


def test_what_is_used_stays() -> None:
    """However long ago it was put there."""
    memory = Memory(2 * size_of(outputs(1)))
    memory.put("1", b"old", outputs(1))
    memory.put("1", b"new", outputs(1))
    assert memory.get("1", b"old") is not None
    memory.put("1", b"newest", outputs(1))
    kept = [name for name in (b"old", b"new", b"newest") if memory.get("1", name) is not None]
    assert kept == [b"old", b"newest"]


@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=2), min_size=1, max_size=3))
def test_only_equal_rows_are_equal_inputs(rows: list[list[int]]) -> None:
    """Ids and keys are the caller's; one row of four values is not two rows of two."""

    def matrix(values: list[list[int]], **members: Any) -> bytes:
        array = np.array(values, np.float32)
        return input_of(Rows(len(array), matrix=array, **members))

    def columns(values: Sequence[Sequence[object]], kind: type) -> bytes:
        named = {name: [kind(row[i]) for row in values] for i, name in enumerate("ab")}
        return input_of(Rows(len(values), columns=named))

    assert matrix(rows) == matrix(rows, ids=["x"], keys=["y"])
    other = [*rows[:-1], [rows[-1][0], rows[-1][1] + 1]]
    assert matrix(rows) != matrix(other)
    assert matrix(rows) != matrix([*rows, *rows])
    assert matrix([[1, 2], [3, 4]]) != matrix([[1, 2, 3, 4]])
    assert columns(rows, str) == columns(rows, str)
    assert columns(rows, str) != columns(other, str)
    assert columns([["a", "bc"]], str) != columns([["ab", "c"]], str)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[int, LoadedModel]:
    folder = tmp_path_factory.mktemp("words")
    return {number: load_words(folder, number) for number in (1, 2)}


def test_cached_answers_are_as_computed_and_logged_too(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """With ids of their own; a swap to another version starts with an empty cache."""
    served = Served(tmp_path, serving='cache = "1MB"')

    async def work() -> list[dict[str, Any]]:
        served.serve(loaded[1])
        one = await served.ask([[1, 2]], [[3, 4], [5, 6]])
        two = await served.ask([[1, 2]], [[3, 4], [5, 6]], [[7, 8]])
        served.serve(loaded[2])
        return all_well([*one, *two, *await served.ask([[1, 2]])])

    a, b, a_again, b_again, fresh, other = served.run(work)
    for said, again in ((a, a_again), (b, b_again)):
        assert said["probabilities"] == again["probabilities"]
        assert set(said["ids"]).isdisjoint(again["ids"])
    assert other["version"] == "2"
    assert other["probabilities"] != a["probabilities"]
    cached = {
        each: said in (a_again, b_again)
        for said in (a, b, a_again, b_again, fresh, other)
        for each in said["ids"]
    }
    assert dict(served.logged("prediction_id, cached")) == cached
    assert served.count("homeostat_cache_hits_total") == 2
    assert served.count("homeostat_cache_misses_total") == 4
    assert served.count("homeostat_role_rows_total", role="champion") == 8


def test_a_version_that_leaves_takes_its_answers_along(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """The one before is in memory still, and so is what it said."""
    served = Served(tmp_path, serving='cache = "1MB"')
    third = load_words(tmp_path / "third", 3)

    async def work() -> None:
        memory = served.model.memory
        assert memory is not None
        served.serve(loaded[1])
        await served.ask([[1, 2]])
        one = memory.bytes
        for each in (loaded[2], third):
            served.serve(each)
            await served.ask([[1, 2]])
        while memory.bytes > 2 * one:  # version 1 is leaving
            await asyncio.sleep(0.001)
        assert memory.bytes == 2 * one
        assert served.count("homeostat_cache_bytes") == 2 * one

    served.run(work)


def test_equal_requests_of_a_batch_are_computed_once(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """Where the model has a thread of its own; each is answered and logged, and what fails one
    fails its equals alone."""
    served = Served(tmp_path, 'durability = "sync"')
    bad = [[1, WORDS + 5]]

    async def work() -> tuple[Answers, Answers]:
        served.serve(loaded[1])
        return await served.ask([[1, 2]], [[3, 4]], [[1, 2]], [[1, 2]]), await served.ask(
            bad, [[1, 2]], bad, [[1, 2]]
        )

    answers, mixed = served.run(work)
    together = all_well(answers)
    assert len({said["ids"][0] for said in together}) == 4
    assert together[0]["probabilities"] == together[2]["probabilities"]
    assert [type(each) for each in mixed] == [ModelError, dict, ModelError, dict]
    assert served.logged("cached") == [(False,)] * 3 + [(True,)] * 3
    assert served.count("homeostat_coalesced_total") == 2 + 2
    assert served.count("homeostat_batch_rows_sum") == 3


def test_who_comes_while_an_equal_is_computed_gets_what_it_said(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """It is in flight with it; who comes afterwards is computed anew."""
    served = Served(tmp_path, 'durability = "sync"')

    async def work() -> None:
        served.serve(loaded[1])
        answers: list[object] = []
        first = served.submit([[1, 2]])
        first.add_done_callback(answers.append)
        await asyncio.sleep(0)  # it is in the model's thread now
        second = served.submit([[1, 2]])
        assert not answers
        one, two = all_well(await answered([first, second]))
        assert one["probabilities"] == two["probabilities"]
        assert one["ids"] != two["ids"]
        assert served.count("homeostat_batch_rows_sum") == 1
        await served.ask([[1, 2]])
        assert served.count("homeostat_batch_rows_sum") == 2

    served.run(work)
    assert served.logged("cached") == [(False,), (False,), (True,)]


def test_who_wants_everything_computed_says_so(
    tmp_path: Path, loaded: dict[int, LoadedModel]
) -> None:
    """A model whose answers are drawn by lot has no equal requests."""
    served = Served(tmp_path, 'durability = "sync"', "coalesce = false")

    async def work() -> None:
        served.serve(loaded[1])
        await served.ask([[1, 2]], [[1, 2]])

    served.run(work)
    assert served.logged("cached") == [(False,)] * 2
