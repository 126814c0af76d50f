"""The bench's own arithmetic and its file of results; what it measures is not for a test."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from bench import contest
from bench.contest import Contestant, Outcome, Span
from bench.fault_case import discrepancies
from bench.journal_readings import Commits, Reading, aims
from bench.load import Load
from bench.machine import describe
from bench.options import Options
from bench.results import Aim, Findings, Report, Table, missed, record
from bench.steady import Told

OURS, PEER = "ours", "peer"


def contestant(name: str) -> Contestant:
    return Contestant(name=name, command=lambda folder, port: [], own=name == OURS)


def span(name: str, number: int, per_second: float, errors: int = 0) -> Span:
    load = Load(requests=2000, per_second=per_second, p50=1.0, p99=20.0, errors=errors)
    return Span(name=name, round=number, connections=64, load=load, cpu=0.5)


@pytest.fixture
def outcome() -> Outcome:
    """A machine that was half as fast in the second round."""
    spans = [
        *(span(OURS, 1, 8000), span(PEER, 1, 1000)),
        *(span(OURS, 2, 4000), span(PEER, 2, 500, errors=3)),
        *(span(OURS, 3, 9000), span(PEER, 3, 1000)),
    ]
    options = Options(connections=(64,))
    return Outcome([contestant(OURS), contestant(PEER)], options, spans, [])


def test_a_ratio_is_taken_within_rounds(outcome: Outcome) -> None:
    """A slow round is slow for both, and changes no ratio."""
    assert outcome.ratio(PEER, 64) == 8
    assert outcome.middle(OURS, 64, lambda each: each.load.per_second) == 8000


def test_errors_and_cpu_are_counted_for_whom_they_belong_to(outcome: Outcome) -> None:
    assert outcome.errors == {PEER: 3}
    assert outcome.of(PEER, 64)[0].cpu_per_thousand == 0.25


def test_the_ratio_stands_beside_the_rate(outcome: Outcome) -> None:
    visits = [contest.Visit(name=name, round=1, ready=1.0, memory=99.0) for name in (OURS, PEER)]
    rates, latencies, costs = contest.tables(replace(outcome, visits=visits))
    assert rates.rows == [[OURS, "8,000"], [PEER, "1,000 (8.00×)"]]
    assert latencies.rows[0] == [OURS, "1.00 / 20"]
    assert costs.rows[1] == [PEER, "0.250", "500 to 1,000", "99", "1.0"]


def test_recording_a_subject_replaces_it_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    machine = describe(["msgspec", "no-such-package"])
    table = Table(title="Seconds", columns=["", "median"], rows=[["a", "1"]])
    findings = Findings(title="First", setup="Something.", tables=[table])
    first = Report(
        subject="first",
        command="python -m bench first",
        machine=machine,
        seconds=60,
        stolen=0.031,
        findings=findings,
    )
    second = replace(first, subject="second", findings=replace(findings, title="Second"))
    for report in (first, second):
        record(report, path)
    before = path.read_text()
    changed = replace(findings, title="Changed", notes=["a note"])
    record(replace(first, findings=changed), path)
    after = path.read_text()
    assert "## First" in before
    assert "## First" not in after
    assert "## Changed" in after
    assert "- a note" in after
    assert (
        after.partition("<!-- second: begin -->")[2]
        == before.partition("<!-- second: begin -->")[2]
    )
    record(first, path)
    assert path.read_text() == before
    assert "| a | 1 |" in before
    assert "3.1% taken by its host" in before
    assert "no-such-package (absent)" in before


KEPT = Counter({"a": 1, "b": 1})
ROWS = {"stored": 2, "rejected": 0, "sampled_out": 0}


@pytest.mark.parametrize(
    ("policy", "told", "counters", "table", "says"),
    [
        ("drop", Told(logged=["a", "b", "c"]), {"received": 3, "dropped": 1}, KEPT, ""),
        ("block", Told(logged=["a", "b"], refused=["c"]), {"received": 2, "dropped": 0}, KEPT, ""),
        ("drop", Told(logged=["a", "b"]), {"received": 2, "dropped": 0}, KEPT, "not reached"),
        ("drop", Told(logged=["a", "b", "c"]), {"received": 3, "dropped": 0}, KEPT, "add up"),
        ("block", Told(["a", "b", "d"], ["c"]), {"received": 3, "dropped": 1}, KEPT, "1 rows are"),
        ("block", Told(["a"], ["b"]), {"received": 2, "dropped": 0}, KEPT, "nobody has"),
        (
            "block",
            Told(["a", "b"], ["c"]),
            {"received": 2, "dropped": 0},
            Counter({"a": 2, "b": 1}),
            "more than once",
        ),
    ],
)
def test_a_row_that_is_not_where_it_should_be_is_found(
    policy: str, told: Told, counters: dict[str, int], table: Counter[str], says: str
) -> None:
    """What a server under faults promised is compared to the row."""
    found = "; ".join(discrepancies(policy, told, ROWS | counters, table, 0))
    assert (says in found) if says else not found


def test_an_aim_that_is_missed_is_told_but_for_a_quick_run() -> None:
    """Whose figures mean nothing."""
    aims = [Aim(said="fast", met=True), Aim(said="small", met=False)]
    assert [str(aim) for aim in aims] == ["fast: met.", "small: MISSED."]
    assert missed(aims, quick=False) == ["small: MISSED."]
    assert missed(aims, quick=True) == []


@pytest.mark.parametrize(("slow", "held"), [(0.02, True), (0.07, False)])
def test_an_hour_of_a_month_may_cost_twice_an_hour_of_a_day(slow: float, held: bool) -> None:
    """Not three times, before compaction or after, new or old."""
    hour, old = "an hour", "an hour of an old day"
    readings = [
        Reading(days=days, compacted=compacted, what=what, rows=1, seconds=seconds)
        for compacted in (False, True)
        for days, what, seconds in ((1, hour, 0.02), (30, hour, 0.03), (30, old, slow))
    ]
    commits = Commits(days=30, first=0.1, last=0.15, after=0.1, compaction=1.0, rows=1, bytes=1)
    judged = aims(readings, [commits], (1, 30))
    assert [aim.met for aim in judged] == [True, held, True, held, True]
    assert bool(missed(judged, quick=False)) != held
