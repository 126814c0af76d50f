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
from score_kit import frame, shapes_project

from homeostat.errors import JobError, SettingsError
from homeostat.settings import load
from loop import batch_runs, tidying
from loop.context import Context
from loop.running import open_context

START = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
SECTION = '\n[[score]]\nname = "all"\ninput = "rows.parquet"\noutput = "out"\nevery = "1h"\n'


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    settings = shapes_project(tmp_path / "project", SECTION)
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
