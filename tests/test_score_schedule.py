"""[[score]]: batch runs on a schedule, by the loop."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from score_kit import frame, shapes_project

from homeostat import events as types
from homeostat.errors import JobError, SettingsError
from homeostat.records import Event
from homeostat.settings import load
from homeostat.state import events
from loop import batch_runs, retraining, tidying
from loop.context import Context
from loop.running import open_context

START = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
SECTION = '\n[[score]]\nname = "all"\ninput = "rows.parquet"\noutput = "out"\nevery = "1h"\n'


@pytest.fixture
def context(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Context]:
    """Of one section; a test may add lines to it."""
    more = getattr(request, "param", "")
    settings = shapes_project(tmp_path / "project", SECTION + more, runtime="onnx")
    made = replace(open_context(settings, os.environ, preload=False), clock=lambda: START)
    yield made
    made.executor.close()
    made.state.close()


def until_ended(context: Context, now: datetime) -> None:
    (section,) = context.settings.score
    deadline = time.monotonic() + 100
    while context.executor.knows(batch_runs.job_name(section)):
        assert time.monotonic() < deadline
        batch_runs.advance(context, section, now)
        time.sleep(0.05)


def failures(context: Context) -> list[Event]:
    """Oldest first."""
    with context.state.begin() as tx:
        return events.newest_of(tx, context.model, types.SCORE_FAILED)[::-1]


def measured(context: Context, name: str, **labels: str) -> float | None:
    labels = {"model": context.model, "job": "all", **labels}
    return context.instruments.registry.get_sample_value(name, labels)


def test_each_time_that_is_due_has_one_file(context: Context) -> None:
    """A run is made once for its time, told in metrics, and made again only at the next; one that
    fails is an error that says why, and is tried again."""
    (section,) = context.settings.score
    batch_runs.advance(context, section, START)
    with pytest.raises(JobError, match=r"rows\.parquet is neither a file nor a folder"):
        until_ended(context, START)
    assert measured(context, "homeostat_score_runs_total", result="failed") == 1
    rows = frame(500)
    rows = rows.set_column(0, "width", [[None, *rows["width"].to_pylist()[1:]]])
    pq.write_table(rows, context.settings.project / "rows.parquet")
    batch_runs.advance(context, section, START)
    tidying.tidy(context)  # what is under way is not swept away
    until_ended(context, START)
    folder = context.settings.project / "out"
    target = folder / "all-20261121T120000Z.parquet"
    assert pq.read_metadata(target).num_rows == 499
    for minutes in (1, 29):
        batch_runs.advance(context, section, START + timedelta(minutes=minutes))
        assert not context.executor.names()
    assert measured(context, "homeostat_score_runs_total", result="some_bad") == 1
    assert measured(context, "homeostat_score_rows") == 500
    assert measured(context, "homeostat_score_answered_ratio") == 499 / 500
    noon = START.replace(minute=0).timestamp()
    assert measured(context, "homeostat_last_score_timestamp_seconds") == noon
    batch_runs.advance(context, section, START + timedelta(minutes=30))
    assert context.executor.names() == ["score-all"]


def test_a_run_that_fails_is_told_once(context: Context) -> None:
    """However often it is tried; the next one that is due is another one."""
    (section,) = context.settings.score
    for minutes in (0, 1, 61):
        now = START + timedelta(minutes=minutes)
        batch_runs.advance(context, section, now)
        with pytest.raises(JobError):
            until_ended(context, now)
    assert measured(context, "homeostat_score_runs_total", result="failed") == 3
    noon, one = failures(context)
    assert (noon.data["job"], noon.time) == ("all", START)
    assert noon.data["error"] == "the batch run all exited with status 1"
    for event in (noon, one):
        assert event.data["tail"].count("rows.parquet is neither a file nor a folder") == 1
    due = [event.data["due"] for event in (noon, one)]
    assert due == ["2026-11-21T12:00:00+00:00", "2026-11-21T13:00:00+00:00"]


def test_an_output_that_cannot_be_made_fails_its_run_alone(context: Context) -> None:
    """It is told like any other failure, and is none of the loop's."""
    (section,) = context.settings.score
    (context.settings.project / "out").write_text("a file in the way")
    with pytest.raises(JobError, match="the batch run all cannot begin"):
        batch_runs.advance(context, section, START)
    [event] = failures(context)
    assert "out" in event.data["error"]


def test_no_step_of_the_loop_ends_a_run_under_way(context: Context) -> None:
    """What retraining stops is what nobody waits for."""
    (section,) = context.settings.score
    pq.write_table(frame(10), context.settings.project / "rows.parquet")
    batch_runs.advance(context, section, START)
    retraining.advance(context, START)
    assert context.executor.names() == ["score-all"]
    until_ended(context, START)
    assert measured(context, "homeostat_score_runs_total", result="answered") == 1


@pytest.mark.parametrize("context", ['format = "delta"\nkeep = "others"\n'], indirect=True)
def test_each_run_appends_once_to_a_table(context: Context) -> None:
    """Killed in the middle, it goes on; given again, it does nothing; the next appends its own."""
    (section,) = context.settings.score
    source, table = context.settings.project / "rows.parquet", context.settings.project / "out"
    pq.write_table(frame(250_000), source, row_group_size=50_000)
    done = batch_runs.places_of(section, START.replace(minute=0)).done
    batch_runs.advance(context, section, START)
    deadline = time.monotonic() + 100
    while not (done.exists() and done.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    context.executor.stop(batch_runs.job_name(section))
    batch_runs.advance(context, section, START)
    until_ended(context, START)
    found = DeltaTable(table).to_pyarrow_table()
    assert found.num_rows == 250_000
    assert len(set(found["note"].to_pylist())) == 250_000
    batch_runs.advance(context, section, START + timedelta(minutes=29))
    assert not context.executor.names()
    assert measured(context, "homeostat_score_rows") == 250_000
    pq.write_table(frame(10), source)
    later = START + timedelta(hours=1)
    batch_runs.advance(context, section, later)
    until_ended(context, later)
    assert DeltaTable(table).to_pyarrow_dataset().count_rows() == 250_010
    assert failures(context) == []


@pytest.mark.parametrize("context", ['format = "delta"\n'], indirect=True)
def test_what_old_runs_left_beside_a_table_is_tidied(context: Context) -> None:
    """The newest hundred stay, and what other jobs and people have there."""
    (section,) = context.settings.score
    runs = batch_runs.places_of(section, START).state.parent
    due = [START - timedelta(hours=back) for back in range(105)]
    for time_ in due:
        batch_runs.places_of(section, time_).state.mkdir(parents=True)
    others = {"all-of-it-20260101T000000Z", "notes"}
    for name in others:
        (runs / name).mkdir()
    tidying.tidy(context)
    kept = {batch_runs.places_of(section, time_).name for time_ in due[:100]}
    assert {path.name for path in runs.iterdir()} == kept | others


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [('"all"', '"a/b"', r"score\[0\]\.name"), ('"1h"', '"5s"', r"score\[0\]\.every")],
)
def test_a_section_that_cannot_be_right(tmp_path: Path, old: str, new: str, said: str) -> None:
    """Names that would be paths, and schedules of seconds, are refused by key."""
    text = '[model]\nname = "shapes"\n' + SECTION.replace(old, new)
    (tmp_path / "homeostat.toml").write_text(text)
    with pytest.raises(SettingsError, match=said):
        load(tmp_path, {})
