"""What reading the log took, and whether that is what was promised: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.processes import Cost
from bench.results import Aim

MOST_RATIO = 2.0  # of an hour's read in the large table to that in the small one
MOST_SLOWER = 0.1  # seconds by which a day's last commits may take longer than its first


@dataclass(frozen=True, kw_only=True)
class Reading:
    days: int
    compacted: bool
    what: str
    rows: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A process that sums the columns of so many days."""

    days: int
    how: str
    rows: int
    cost: Cost
    peak_mib: float


@dataclass(frozen=True, kw_only=True)
class Commits:
    """Median seconds of a commit of the table's last day."""

    days: int
    first: float
    last: float
    after: float  # compaction
    compaction: float  # seconds it took
    rows: int  # of the table, compacted
    bytes: int


def ratios(readings: Sequence[Reading], sizes: Sequence[int]) -> dict[str, float]:
    """Of an hour in the large table to the newest hour in the small one."""
    small, large = sizes[0], sizes[-1]
    found = {}
    for compacted in (False, True):
        state = "after compaction" if compacted else "before compaction"
        least = seconds(readings, small, compacted, "an hour")
        for what in ("an hour", "an hour of an old day"):
            found[f"{what}, {state}"] = seconds(readings, large, compacted, what) / least
    return found


def aims(
    readings: Sequence[Reading], commits: Sequence[Commits], sizes: Sequence[int]
) -> list[Aim]:
    small, large = sizes[0], sizes[-1]
    found = [
        Aim(
            said=f"Of the {large}-day table {what} takes {ratio:.2f} times what the newest hour of "
            f"the {small}-day table takes (asked: at most {MOST_RATIO:g})",
            met=ratio <= MOST_RATIO,
        )
        for what, ratio in ratios(readings, sizes).items()
    ]
    slower = max(max(each.last, each.after) - each.first for each in commits)
    said = (
        f"After a day of commits the next one takes at most {1000 * slower:.0f} ms more than the "
        f"first, {slower / 30:.2%} of the 30 s between two: a fresh handle reads the log (asked: "
        f"at most {1000 * MOST_SLOWER:.0f} ms)"
    )
    return [*found, Aim(said=said, met=slower <= MOST_SLOWER)]


def seconds(readings: Sequence[Reading], days: int, compacted: bool, what: str) -> float:
    return next(
        each.seconds
        for each in readings
        if (each.days, each.compacted, each.what) == (days, compacted, what)
    )


def size_of(table: Commits) -> str:
    return f"{table.rows:,} rows in {table.bytes / 1e9:.1f} GB"
