"""How late labels come, what of each day is labelled, and when a window will be mature."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from journal_kit import (
    NOON,
    SteppingClock,
    at,
    label,
    open_journal,
    open_writer,
    tensor_rows,
)

from homeostat.journal.encoding.recording import Recording
from homeostat.journal.encoding.schema import microseconds
from homeostat.journal.reading.ledger import Ledger, estimated, summary

DAY = 86_400
HOUR_US = 3_600_000_000


def days_ago(days: float) -> datetime:
    return at(-DAY * days)


def of_rows(times: list[datetime], labelled: list[datetime | None], now: datetime) -> Ledger:
    rows = np.array([microseconds(time) for time in times])
    labels = np.array([-1 if time is None else microseconds(time) for time in labelled])
    return summary(rows, labels, now=now, name="label", sampled=1.0)


def test_ledger_of_a_log(tmp_path: Path) -> None:
    """Days with their shares, the delay of first labels, and when a window will be mature."""
    clock = SteppingClock()
    writer = open_writer(tmp_path, clock=clock)
    for day in (3, 2, 1, 0):
        clock.now = days_ago(day) + timedelta(hours=1)
        ids = [f"day{day}-{n}" for n in range(10)]
        writer.append(tensor_rows(ids, days_ago(day)))
        come = [each for n, each in enumerate(ids) if n < 5 and day]
        writer.label([label(each, "7", days_ago(day) + timedelta(hours=2)) for each in come])
    writer.label([label("day3-0", "8", days_ago(0)), label("stranger", "7", days_ago(1))])
    writer.append(tensor_rows(["day2-9"], days_ago(2), version="2", role="shadow"))
    writer.close()
    journal = open_journal(tmp_path)
    found = journal.ledger(NOON + timedelta(hours=1))
    assert [(day.day, day.rows, day.labelled) for day in found.days] == [
        ("2026-11-17", 10, 5),
        ("2026-11-18", 10, 5),
        ("2026-11-19", 10, 5),
        ("2026-11-20", 10, 0),
    ]
    assert (found.rows, found.labelled, found.sampled) == (40, 15, 1.0)
    assert found.ever == pytest.approx(0.5)
    assert [each.delay for each in found.delays] == [timedelta(hours=2)] * 4
    assert found.settled
    assert found.mature_at(NOON) == NOON + timedelta(hours=2)
    assert journal.ledger(NOON + timedelta(hours=1), days=2).rows == 20
    assert journal.ledger(NOON, label="liked").labelled == 0


def test_label_is_as_late_as_it_arrived(tmp_path: Path) -> None:
    """A nightly import gives labels times of their own: they were not there before the night."""
    writer = open_writer(tmp_path)
    ids = [f"row-{n}" for n in range(10)]
    writer.append(tensor_rows(ids, days_ago(3)))
    writer.close()
    own = [label(each, "7", days_ago(3) + timedelta(minutes=5)) for each in ids]
    open_journal(tmp_path).add_labels(own, writer_id="night", now=days_ago(2.5))
    found = open_journal(tmp_path).ledger(NOON)
    assert found.mature_after == timedelta(hours=12)
    assert open_journal(tmp_path).ledger(days_ago(2.6)).labelled == 0


def test_large_sampled_logs_are_looked_at_in_full_number(tmp_path: Path) -> None:
    """Which rows are logged and which are looked at is decided by the same number of an id: of a
    log of half the rows, a quarter is an eighth of all ids."""
    writer = open_writer(tmp_path, recording=Recording(sample=0.5))
    ids = [f"row-{n}" for n in range(4000)]
    writer.append(tensor_rows(ids, days_ago(1)))
    writer.label([label(each, "7", days_ago(0.5)) for each in ids[:2000]])
    writer.close()
    found = open_journal(tmp_path).ledger(NOON + timedelta(hours=1), rows=500)
    assert found.sampled == pytest.approx(0.25, rel=0.1)
    assert 400 < found.rows < 600
    assert found.ever == pytest.approx(0.5, abs=0.08)


def test_rows_without_a_label_are_not_rows_that_never_get_one() -> None:
    """Young rows still wait: the delay is that of all that ever come, not of those that came."""
    random = np.random.default_rng(1)
    now = 60 * 24 * HOUR_US
    times = np.sort(random.integers(0, now, 40_000))
    delays = random.exponential(5 * 24 * HOUR_US, len(times)).astype(np.int64)
    come = random.random(len(times)) < 0.7
    labelled = np.where(come & (times + delays <= now), times + delays, -1)
    found = estimated(times, labelled, now)
    assert found.ever == pytest.approx(0.7, abs=0.02)
    for share in (0.1, 0.5, 0.9):
        truth = -np.log(1 - share) * 5 * 24
        assert found.quantile_us(share) / HOUR_US == pytest.approx(truth, rel=0.06)
    seen = (labelled - times)[labelled >= 0]
    assert (
        np.quantile(seen, 0.9) / HOUR_US < 0.95 * -np.log(0.1) * 5 * 24
    )  # what naive counting says


def test_ledger_says_when_it_cannot_know() -> None:
    """Where labels keep coming until now, more may come: its figures are lower bounds."""
    times = [days_ago(n) for n in range(40, 0, -1)]
    steady = of_rows(times, [None if n % 2 else NOON for n in range(40)], NOON)
    assert not steady.settled
    assert steady.mature_after is not None
    nothing = of_rows(times, [None] * 40, NOON)
    assert (nothing.ever, nothing.delays, nothing.mature_after) == (None, (), None)
    assert nothing.mature_at(NOON) is None
    empty = of_rows([], [], NOON)
    assert (empty.rows, empty.days, empty.ever) == (0, (), None)


def test_label_before_its_prediction_came_without_delay() -> None:
    """Clocks differ; a negative delay is none."""
    found = of_rows([days_ago(1)], [days_ago(2)], NOON)
    assert [each.delay for each in found.delays] == [timedelta(0)] * 4


def test_large_logs_are_sampled_by_id(tmp_path: Path) -> None:
    """Rows and their labels are drawn together, and the record says how many were looked at."""
    writer = open_writer(tmp_path)
    ids = [f"row-{n}" for n in range(2000)]
    writer.append(tensor_rows(ids, days_ago(1)))
    writer.label([label(each, "7", days_ago(0.5)) for each in ids[:1000]])
    writer.close()
    found = open_journal(tmp_path).ledger(NOON + timedelta(hours=1), rows=500)
    assert found.sampled == pytest.approx(0.25)
    assert 400 < found.rows < 600
    assert found.ever == pytest.approx(0.5, abs=0.08)
