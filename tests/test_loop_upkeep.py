"""The loop keeps the log's tables on a schedule that survives it, and one at a time."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import project_kit as kit
import pytest
from journal_kit import NOON, SteppingClock, open_writer, tensor_rows

from homeostat import events as types
from homeostat.errors import Conflict
from homeostat.settings import load
from homeostat.state import controls, events, upkeeps
from homeostat.state.upkeeps import Upkeep
from loop import tidying, upkeep_lease, upkeeping
from loop.context import Context
from loop.running import open_context

START = NOON + timedelta(days=2)
EVERY = timedelta(hours=1)
LEASE = "upkeep:cancer"


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    settings = load(kit.make_project(tmp_path / "cancer"), {})
    made = replace(open_context(settings, os.environ, preload=False), clock=lambda: START)
    yield made
    made.executor.close()
    made.state.close()


def standing(context: Context) -> Upkeep:
    with context.state.begin() as tx:
        return upkeeps.standing(tx, context.model, START)


def fill(context: Context) -> None:
    """Ten commits of one row, a day ago by the wall clock, which is the job's."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    writer = open_writer(context.settings.home, model=context.model, clock=SteppingClock(yesterday))
    for number in range(10):
        writer.append(tensor_rows([f"row-{number}"], yesterday))
        writer.flush()
    writer.close()


def until_ended(context: Context, now: datetime) -> Upkeep:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        upkeeping.advance(context, now)
        if standing(context).started_at is None:
            return standing(context)
        time.sleep(0.05)
    raise AssertionError("it did not end")


def gauge(context: Context, name: str) -> float | None:
    return context.instruments.registry.get_sample_value(name, {"model": context.model})


def test_the_first_comes_a_while_after_the_start_and_tells_what_it_did(context: Context) -> None:
    """As a job, whose result is in the state and in the metrics; then it is due again."""
    fill(context)
    upkeeping.advance(context, START)
    upkeeping.advance(context, START + EVERY - timedelta(seconds=1))
    assert standing(context).started_at is None
    assert gauge(context, "homeostat_journal_rows") is None
    upkeeping.advance(context, START + EVERY)
    assert standing(context).started_at == START + EVERY
    tidying.tidy(context)  # what is under way is not swept away
    ended = until_ended(context, START + EVERY)
    assert ended.result is not None
    assert (ended.result.rows, ended.result.files, ended.result.files_replaced) == (10, 1, 10)
    assert gauge(context, "homeostat_journal_rows") == 10
    assert gauge(context, "homeostat_journal_files") == 1
    assert gauge(context, "homeostat_journal_table_bytes") == ended.result.bytes > 0
    done_at = (START + EVERY).timestamp()
    assert gauge(context, "homeostat_last_upkeep_timestamp_seconds") == done_at
    assert list(context.settings.jobs_path.iterdir()) == []
    assert upkeeping.due_at(ended, EVERY) == START + 2 * EVERY


def test_a_restart_loses_no_schedule_and_no_upkeep(context: Context) -> None:
    """What was due while nobody ran is due at once; what was cut off begins again."""
    upkeeping.advance(context, START)
    upkeeping.advance(context, START + EVERY)
    context.executor.close()  # the loop dies, and its job with it
    again = replace(context, executor=type(context.executor)(os.environ))
    assert until_ended(again, START + EVERY).result is not None
    week = timedelta(days=7)
    upkeeping.advance(again, START + week)
    assert standing(again).started_at == START + week
    again.executor.close()


def test_two_never_keep_the_tables_at_once(context: Context) -> None:
    """Neither two loops, nor the loop and a command by hand."""
    upkeeping.advance(context, START)
    other = "elsewhere:1:2:7"
    with context.state.begin() as tx:
        controls.take_lease(tx, LEASE, other, START + EVERY, timedelta(minutes=2))
    upkeeping.advance(context, START + EVERY)
    assert standing(context).started_at is None
    clock = SteppingClock(START + EVERY)
    with (
        pytest.raises(Conflict, match="under way"),
        upkeep_lease.held(context.state, context.model, clock, within=timedelta(0)),
    ):
        pass
    upkeeping.advance(context, START + EVERY + timedelta(minutes=3))  # it ran out
    assert standing(context).started_at is not None
    until_ended(context, START + EVERY)
    with upkeep_lease.held(context.state, context.model, clock), context.state.begin() as tx:
        assert controls.take_lease(tx, LEASE, other, START, timedelta(minutes=2)) is None


def test_a_failure_is_tried_again_and_told_when_it_lasts(context: Context) -> None:
    """Sooner than the next regular one, later each time; at the third in a row there is an event,
    and the first success forgets them."""
    journal = context.settings.home / "journal"
    shutil.rmtree(journal, ignore_errors=True)
    journal.write_text("not a folder")
    upkeeping.advance(context, START)
    now, told = START + EVERY, []
    for failures in range(1, 5):
        upkeeping.advance(context, now)
        ended = until_ended(context, now)
        assert ended.failures == failures
        assert "does not answer" in (ended.error or "")
        with context.state.begin() as tx:
            told.append(events.last(tx, context.model, [types.UPKEEP_FAILED]) is not None)
        now = upkeeping.due_at(ended, EVERY)
        assert now - ended.ended_at == timedelta(minutes=1) * 2 ** (failures - 1)
    assert told == [False, False, True, True]
    journal.unlink()
    upkeeping.advance(context, now)
    assert until_ended(context, now).failures == 0
