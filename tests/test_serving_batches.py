"""What happens to requests that share a batch when something in it goes wrong, and who is next."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from words_kit import WORDS, Answers, Served, answered, load_words

from homeostat.errors import JournalUnavailable, ModelError
from homeostat.model_runtime.contract import LoadedModel
from serving.requests.asked import Asked, seconds_of
from serving.requests.problem import Overdue, Overloaded, Refused, TooLarge
from serving.requests.turns import Turns


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_words(tmp_path_factory.mktemp("words"))


def answers_of(served: Served, loaded: LoadedModel, requests: Sequence[list[list[int]]]) -> Answers:
    async def work() -> Answers:
        served.serve(loaded)
        return await served.ask(*requests)

    return served.run(work)


@pytest.mark.parametrize("durability", ["spool", "sync"])  # sync: in the model's own thread
def test_a_row_the_model_fails_on_fails_its_caller_alone(
    tmp_path: Path, fragile: LoadedModel, durability: str
) -> None:
    """The neighbours in the batch are answered and logged, the failed rows are not."""
    served = Served(tmp_path, f'durability = "{durability}"')
    good, unknown, not_a_number = [[1, 2]], [[1, WORDS + 5]], [[1, WORDS - 1]]
    answers = answers_of(served, fragile, [good, unknown, good, not_a_number, good])
    kinds = [type(answer) for answer in answers]
    assert kinds == [dict, ModelError, dict, ModelError, dict]
    assert served.model.journal.level().received == 3


def test_answers_keep_their_callers_across_batches(tmp_path: Path, fragile: LoadedModel) -> None:
    """Requests of different sizes, one of them larger than a batch."""
    served = Served(tmp_path)
    requests = [[[i % 9, j % 9] for j in range(size)] for i, size in enumerate((1, 3, 2, 9, 1, 4))]

    async def work() -> tuple[Answers, Answers]:
        served.serve(fragile)
        together = await served.ask(*requests)
        return together, [(await served.ask(rows))[0] for rows in requests]

    for joint, single in zip(*served.run(work), strict=True):
        assert isinstance(joint, dict)
        assert isinstance(single, dict)
        assert joint["predictions"] == single["predictions"]
    assert served.model.journal.level().received == 2 * 20


def test_what_cannot_wait_is_told_at_once(tmp_path: Path, fragile: LoadedModel) -> None:
    """Past the limit callers are sent away; afterwards there is room again."""
    served = Served(tmp_path)

    async def work() -> None:
        served.serve(fragile)
        full = [[[1, 1]] * 10, [[1, 1]] * 10]
        waiting = asyncio.ensure_future(served.ask(*full))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await served.ask([[1, 1]])
        with pytest.raises(TooLarge):
            await served.ask([[1, 1]] * 21)
        assert all(isinstance(answer, dict) for answer in await waiting)
        assert all(isinstance(answer, dict) for answer in await served.ask(*full))

    served.run(work)


@pytest.mark.parametrize(("when_full", "kind"), [("block", JournalUnavailable), ("drop", dict)])
def test_an_answer_that_cannot_be_logged(
    tmp_path: Path, fragile: LoadedModel, when_full: str, kind: type
) -> None:
    """Goes out only where the settings let rows be lost."""
    served = Served(tmp_path, f'when_full = "{when_full}"\nblock_for = "100ms"')

    async def work() -> Answers:
        served.serve(fragile)
        return await served.ask([[1, 2]], [[3, 4]])

    answers = asyncio.run(work())  # its journal was never started: it takes nothing
    assert [type(answer) for answer in answers] == [kind, kind]


def test_what_is_overdue_is_told_so_and_never_computed(
    tmp_path: Path, fragile: LoadedModel
) -> None:
    """Its neighbours are answered."""
    served = Served(tmp_path)

    async def work() -> Answers:
        served.serve(fragile)
        now = asyncio.get_running_loop().time()
        told = [served.submit([[1, 2]], Asked(until=now + more)) for more in (60, 0, -1, 60)]
        return await answered([*told, served.submit([[1, 2]])])

    answers = served.run(work)
    assert [type(answer) for answer in answers] == [dict, Overdue, Overdue, dict, dict]
    assert [answer.status for answer in answers if isinstance(answer, Overdue)] == [504, 504]
    assert served.count("homeostat_role_rows_total") == 3
    assert served.model.journal.level().received == 3


@pytest.mark.parametrize("text", [b"", b"soon", b"0", b"-1", b"nan", b"inf", b"1e9"])
def test_a_time_that_is_none_is_refused(text: bytes) -> None:
    """And not taken for none."""
    with pytest.raises(Refused, match="x-request-timeout is a number of seconds") as refused:
        seconds_of(text)
    assert refused.value.status == 400


def test_a_caller_with_many_rows_keeps_nobody_from_a_few(
    tmp_path: Path, fragile: LoadedModel
) -> None:
    """Who comes last with one row is in the next batch, and every answer is its caller's own."""
    served = Served(tmp_path)
    order: list[str] = []

    async def work() -> Answers:
        served.serve(fragile)
        told = []
        for place, name in enumerate("a" * 18 + "b" + "c"):
            future = served.submit([[place % 9, 1]], Asked(name))
            future.add_done_callback(lambda _, name=name: order.append(name))  # type: ignore[misc]
            told.append(future)
        return await answered(told)

    answers = served.run(work)
    assert sorted(order[:4]) == ["a", "a", "b", "c"]
    assert all(isinstance(answer, dict) for answer in answers)
    assert served.model.journal.level().received == 20


def test_connections_take_turns_and_have_no_share(tmp_path: Path, fragile: LoadedModel) -> None:
    """One that comes last with one row is in the next batch; into a full queue none gets in."""
    served = Served(tmp_path)
    order: list[str] = []

    async def work() -> None:
        served.serve(fragile)
        told = []
        for name in "a" * 19 + "b":
            future = served.submit([[1, 1]], Asked(connection=name))
            future.add_done_callback(lambda _, name=name: order.append(name))  # type: ignore[misc]
            told.append(future)
        with pytest.raises(Overloaded):
            served.submit([[1, 1]], Asked(connection="c"))
        told.append(served.submit([[1, 1]], Asked("a key")))
        await answered(told)

    served.run(work)
    assert sorted(order[:3]) == ["a", "a", "b"]


def test_a_caller_that_fills_the_queue_fills_its_share(
    tmp_path: Path, fragile: LoadedModel
) -> None:
    """Others still get in, up to theirs; there is an end for all together."""
    served = Served(tmp_path)

    async def work() -> None:
        served.serve(fragile)
        told = [served.submit([[1, 2]] * 20, Asked("a"))]
        for caller, rows in (("a", 1), ("b", 11), ("", 1)):
            with pytest.raises(Overloaded):
                served.submit([[1, 2]] * rows, Asked(caller))
        told += [served.submit([[1, 2]] * 5, Asked(caller)) for caller in "bbcde"[:4]]
        with pytest.raises(Overloaded):
            served.submit([[1, 2]] * 4, Asked("f"))
        assert [type(answer) for answer in await answered(told)] == [dict] * 5
        told = [served.submit([[1, 2]] * 20, Asked("b"))]  # nothing of it is left behind
        assert [type(answer) for answer in await answered(told)] == [dict]

    served.run(work)


def test_a_batch_grows_for_as_long_as_the_settings_say(
    tmp_path: Path, fragile: LoadedModel
) -> None:
    """And goes as soon as it is full; without a wait each of these would be alone."""
    served = Served(tmp_path, serving='batch_wait = "1h"')

    async def work() -> Answers:
        served.serve(fragile)
        told = []
        for _ in range(4):
            told.append(served.submit([[1, 2]]))
            await asyncio.sleep(0.001)
        return await answered(told)

    assert [type(answer) for answer in served.run(work)] == [dict] * 4
    assert served.count("homeostat_batch_rows_count") == 1


@dataclass(frozen=True)
class Line:
    caller: str
    count: int
    number: int


def test_who_comes_late_has_saved_up_no_turns() -> None:
    """And takes its turn with the others from then on."""
    waiting = deque(Line("ab"[number % 2], 1, number) for number in range(100))
    turns = Turns()
    for _ in range(10):
        for each in turns.next(waiting, 4):
            waiting.remove(each)
    waiting.extend(Line("c", 1, number) for number in range(100, 200))
    had = Counter[str]()
    for _ in range(3):
        for each in turns.next(waiting, 4):
            waiting.remove(each)
            had[each.caller] += 1
    assert had == {"a": 4, "b": 4, "c": 4}


lines = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 12)), min_size=1, max_size=60)


@given(lines, st.integers(1, 10))
def test_everybody_gets_their_turn(given_lines: list[tuple[str, int]], most: int) -> None:
    """Nobody is lost or doubled; batches are as large as they may be; a caller's own order holds;
    and while two callers wait, neither gets more than a batch and a request ahead of the other."""
    waiting = deque(Line(*each, number) for number, each in enumerate(given_lines))
    turns, had, taken = Turns(), Counter[str](), []
    largest = max(count for _, count in given_lines)
    while waiting:
        batch = turns.next(waiting, most)
        assert batch
        assert len(batch) == 1 or sum(each.count for each in batch) <= most
        for each in batch:
            waiting.remove(each)
            had[each.caller] += each.count
        taken += batch
        still = {each.caller for each in waiting}
        ahead = [had[one] - had[other] for one in still for other in still]
        assert max(ahead, default=0) <= most + largest
    assert sorted(each.number for each in taken) == list(range(len(given_lines)))
    for caller in "abc":
        own = [each.number for each in taken if each.caller == caller]
        assert own == sorted(own)
