"""An answer that comes later reaches everybody who waits for it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from serving.requests.later import Later, failed


def test_who_waits_is_called_at_once_and_in_order() -> None:
    """Also who comes when it is there."""
    seen: list[str] = []
    answer: Later[int] = Later()
    for name in "abc":
        answer.add_done_callback(lambda done, name=name: seen.append(f"{name}{done.result()}"))  # type: ignore[misc]
    answer.set_result(7)
    answer.add_done_callback(lambda done: seen.append(f"d{done.result()}"))
    assert seen == ["a7", "b7", "c7", "d7"]


def test_one_that_fails_keeps_no_other_from_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    """It is told in the log."""
    seen: list[int] = []
    answer: Later[int] = Later()
    answer.add_done_callback(lambda _: 1 / 0)
    answer.add_done_callback(lambda done: seen.append(done.result()))
    with caplog.at_level(logging.ERROR):
        answer.set_result(7)
    assert seen == [7]
    assert "did not reach" in caplog.text


def test_a_coroutine_waits_for_it_and_may_give_up() -> None:
    """It is settled all the same."""

    async def work() -> None:
        answer: Later[int] = Later()
        waiting = [asyncio.ensure_future(_of(answer)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        answer.set_result(7)
        assert await waiting[1] == 7
        assert waiting[0].cancelled()
        assert await answer == 7
        with pytest.raises(ZeroDivisionError):
            await failed(ZeroDivisionError())

    asyncio.run(work())


async def _of(answer: Later[int]) -> int:
    return await answer
