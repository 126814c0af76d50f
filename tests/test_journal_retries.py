"""What cannot be stored is tried again: soon at first, then more seldom, and never given up."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_kit import open_writer, tensor_rows

from homeostat.journal.spooling.retry import (
    COSTLY_WAIT,
    FIRST_WAIT,
    LONGEST_WAIT,
    Retry,
    wait_after,
)

EVERY = 30.0


@given(tries=st.lists(st.booleans(), min_size=1, max_size=40))
def test_waits_double_up_to_the_longest_of_their_kind(tries: list[bool]) -> None:
    """A commit that may have left a file behind is tried more seldom than a table that cannot be
    opened; nothing is ever tried without a wait, or waits without end."""
    wait = 0.0
    for costly in tries:
        before, wait = wait, wait_after(wait, costly=costly)
        longest = COSTLY_WAIT if costly else LONGEST_WAIT
        assert FIRST_WAIT <= wait <= longest
        assert wait in (FIRST_WAIT, 2 * before, longest)
        assert wait >= min(before, longest)
    if len(tries) >= 10 and len(set(tries[-10:])) == 1:
        assert wait == (COSTLY_WAIT if tries[-1] else LONGEST_WAIT)


@given(outcomes=st.lists(st.tuples(st.sampled_from("sfc"), st.floats(0, 1)), max_size=30))
def test_the_next_try_is_due_when_its_wait_is_over(outcomes: list[tuple[str, float]]) -> None:
    """Earlier only where somebody asks after one that went well; a success forgets all waits."""
    now = 0.0
    retry = Retry(EVERY, lambda: now)
    assert retry.due(woken=False)
    for outcome, share in outcomes:
        if outcome == "s":
            retry.succeeded()
            wait = EVERY
            assert retry.wait == 0
        else:
            retry.failed(OSError("away"), costly=outcome == "c")
            wait = retry.wait
        assert retry.left() == pytest.approx(wait)
        now += share * wait * 0.99
        assert not retry.due(woken=False)
        assert retry.due(woken=True) == (outcome == "s")
        now += wait
        assert retry.due(woken=False)


@pytest.mark.parametrize("broken", ["the storage", "a folder of the table"])
def test_rows_whose_commit_fails_are_tried_again_by_themselves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """After waits that double, and are told; once the trouble is over the rows are stored, without
    a flush and without another row."""
    caplog.set_level(logging.ERROR)
    trouble = tmp_path / "journal"
    if broken != "the storage":
        open_writer(tmp_path).close()
        trouble = tmp_path / "journal/digits/predictions/model=digits"
        trouble.parent.mkdir(parents=True, exist_ok=True)
    trouble.write_text("not a folder")
    writer = open_writer(tmp_path, commit_every=timedelta(seconds=0.01))
    writer.append(tensor_rows(["a"]))
    wait_for(lambda: writer.level().errors >= 3)
    assert writer.level().stored == 0
    trouble.unlink()
    wait_for(lambda: writer.level().stored == 1)
    said = [re.search(r"next try in (\S+) s", each.getMessage()) for each in caplog.records]
    waits = [float(each[1]) for each in said if each and "predictions" in each.string]
    assert waits[:2] == [0.25, 0.5]
    writer.close()


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
