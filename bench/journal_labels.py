"""A million labels as life brings them, joined to their rows: right, and how fast."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bench.options import Options, Steps
from bench.results import Findings, Table
from homeostat.identifiers import uuid7
from homeostat.journal.delta import tables
from homeostat.journal.delta.commits import commit
from homeostat.journal.encoding.arrays import TIME
from homeostat.journal.encoding.schema import column_of, microseconds
from homeostat.journal.keeping.compaction import compact
from homeostat.journal.reader import Journal
from homeostat.journal.reading.ledger import Ledger
from homeostat.records import Task

PACKAGES = ("deltalake", "pyarrow", "pandas")
MODEL = "labelled"
LABELS = 1_000_000
CORRECTED, UNKNOWN, DOUBLED = 0.05, 0.01, 0.01  # of the labels
OWN_IDS = 0.1  # of the rows: the callers' ids, which hold no time
SAME_MOMENT = 0.2  # of the rows: predicted at the moment of the one before, as in one request
SAME_TIME = 0.4  # of the corrections: with the time of what they correct
SAME_REQUEST = 0.5  # of these: arrived with it, so that only the place in the request decides,
OTHER_SERVER = 0.5  # or, at another server, with its place as well: the source, then the value
BEGIN = datetime(2026, 5, 1, tzinfo=UTC)
SPAN = timedelta(days=7)
LATE = timedelta(hours=8)  # the mean delay, exponential
COMMITS = 7 * 24  # of labels, by their arrival, an hour each


@dataclass(frozen=True, kw_only=True)
class Turn:
    what: str
    rows: int
    seconds: float
    reference: float  # seconds of pandas on the same rows and labels, already in memory


@dataclass(frozen=True)
class Given:
    """All that was predicted and labelled, in memory, for the reference to work on."""

    rows: pd.DataFrame  # prediction_id, time; in time order
    labels: pd.DataFrame  # as they arrived


def others() -> list[str]:
    return []


def run(options: Options, steps: Steps, folder: Path) -> Findings:
    count = LABELS // 50 if options.quick else LABELS
    steps.expect(5)
    steps.tell("making rows and labels")
    given = _given(count, np.random.default_rng(11))
    steps.done()
    steps.tell("storing them")
    url = str(folder / "log")
    _store(given, url)
    steps.done()
    journal = Journal(url, MODEL, Task.CLASSIFICATION)
    windows = {
        "the whole week": (BEGIN, BEGIN + SPAN),
        "one day": (BEGIN + 3 * SPAN / 7, BEGIN + 4 * SPAN / 7),
        "one hour": (BEGIN + SPAN / 2, BEGIN + SPAN / 2 + timedelta(hours=1)),
    }
    turns = []
    for state in ("before compaction", "after compaction"):
        steps.tell(f"joining {state}")
        if state == "after compaction":
            for table in ("predictions", "labels"):
                compact(_table(url, table), now=BEGIN + 3 * SPAN)
        for name, (start, end) in windows.items():
            turns.append(_joined(journal, given, f"{name}, {state}", start, end, options))
        turns.append(_streamed(journal, given, f"the whole week in batches, {state}"))
        steps.done()
    waiting = journal.pending_labels()
    if waiting != _without_row(given):
        raise SystemExit(f"{waiting} labels wait for a prediction, not {_without_row(given)}")
    steps.tell("the ledger")
    began = time.perf_counter()
    ledger = journal.ledger(BEGIN + SPAN, days=8)
    ledger_seconds = time.perf_counter() - began
    steps.done()
    return Findings(
        title="Labels out of order",
        setup=(
            f"{count:,} labels for {len(given.rows):,} predictions of seven days, in {COMMITS} "
            "commits in the order of their arrival: each comes after its prediction, "
            f"{LATE.total_seconds() / 3600:.0f} hours later on average; {CORRECTED:.0%} correct an "
            f"earlier one, {UNKNOWN:.0%} belong to no prediction, {DOUBLED:.0%} came twice; "
            f"{SAME_TIME:.0%} of the corrections have the time of what they correct. "
            f"{OWN_IDS:.0%} of the rows have ids of the caller's own. A window with its labels is "
            "compared row for row with pandas (sort, keep the last of each id, merge); the run "
            "fails where one differs."
        ),
        tables=[_table_of(turns)],
        notes=[
            f"Every window equals the reference, row for row; "
            f"{waiting:,} labels wait for a prediction, as they should.",
            f"The ledger took {ledger_seconds:.2f} s; by it, nine tenths of the labels that ever "
            f"come are known after {_hours(ledger)} hours (true: {_truth(given):.1f}).",
        ],
        figures={"turns": turns, "ledger_seconds": ledger_seconds, "ledger": ledger},
    )


def _given(count: int, random: np.random.Generator) -> Given:
    """As many rows as there are first labels that belong to one, and a tenth more without any."""
    corrections, unknown, doubled = (round(count * s) for s in (CORRECTED, UNKNOWN, DOUBLED))
    firsts = count - corrections - unknown - doubled
    span_us = SPAN // timedelta(microseconds=1)
    times = np.sort(random.integers(0, span_us, round(firsts * 1.1))) + microseconds(BEGIN)
    same = random.random(len(times)) < SAME_MOMENT
    times[1:] = np.where(same[1:], times[:-1], times[1:])
    ids = np.array([uuid7(int(each) * 1000) for each in times])
    own = random.choice(len(ids), round(len(ids) * OWN_IDS), replace=False)
    ids[own] = [f"order-{number}" for number in range(len(own))]
    labelled = random.choice(len(ids), firsts, replace=False)
    delays = random.exponential(LATE / timedelta(microseconds=1), firsts).astype(np.int64)
    first = pd.DataFrame({"prediction_id": ids[labelled], "time": times[labelled] + delays})
    first = first.assign(value=random.integers(0, 10, firsts).astype(str), source="one")
    # Arrival is no order of time: a queue that was away, a file that is imported at night.
    first["received"] = first["time"] + random.exponential(3.6e9, firsts).astype(np.int64)
    again = _corrections(first.sample(corrections, random_state=1), random)
    strangers = first.sample(unknown, random_state=2)
    strangers = strangers.assign(prediction_id=[uuid7(int(t) * 1000) for t in strangers["time"]])
    twice = first.sample(doubled, random_state=3)
    twice = twice.assign(received=twice["received"] + random.integers(0, span_us // 7, doubled))
    labels = pd.concat([first, again, strangers, twice])
    # within one arrival in any order: the order in which they then stand is the request's
    labels = labels.sample(frac=1, random_state=4).sort_values("received", kind="stable")
    labels["ordinal"] = labels.groupby(["received", "source"]).cumcount()
    return Given(
        rows=pd.DataFrame({"prediction_id": ids, "time": times}),
        labels=labels.reset_index(drop=True),
    )


def _corrections(corrected: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """Other values for the same ids, mostly later ones; some at the very moment."""
    count, day_us = len(corrected), SPAN // timedelta(microseconds=1) // 7
    later = 1 + random.integers(0, day_us, count)
    later[random.random(count) < SAME_TIME] = 0
    travelled = random.exponential(3.6e9, count).astype(np.int64)
    arrived_at = corrected["time"] + later + travelled
    together = (later == 0) & (random.random(count) < SAME_REQUEST)
    return corrected.assign(
        time=corrected["time"] + later,
        received=np.where(together, corrected["received"], arrived_at),
        value=random.integers(10, 20, count).astype(str),
        source=np.where(random.random(count) < OTHER_SERVER, "another", "one"),
    )


def _table(url: str, name: str) -> Any:
    if name == "labels":
        return tables.labels(url, MODEL)
    return tables.predictions(url, MODEL, Task.CLASSIFICATION)


def _store(given: Given, url: str) -> None:
    predictions, labels = _table(url, "predictions"), _table(url, "labels")
    for turn, part in enumerate(np.array_split(np.arange(len(given.rows)), COMMITS)):
        rows = given.rows.iloc[part]
        data = pa.table(
            {
                "prediction_id": rows["prediction_id"].tolist(),
                "time": _times(rows["time"]),
                "version": ["1"] * len(rows),
                "role": ["champion"] * len(rows),
                "prediction": ["1"] * len(rows),
                column_of("x"): part.astype(float),
            }
        )
        dated = tables.with_partitions(data, predictions)
        commit(predictions, dated, app_id="bench", version=turn)
    for turn, part in enumerate(np.array_split(np.arange(len(given.labels)), COMMITS)):
        rows = given.labels.iloc[part]
        data = pa.table(
            {
                "prediction_id": rows["prediction_id"].tolist(),
                "name": ["label"] * len(rows),
                "value": rows["value"].tolist(),
                "source": rows["source"].tolist(),
                "time": _times(rows["time"]),
                "received": _times(rows["received"]),
                "ordinal": pa.array(rows["ordinal"].to_numpy()),
            }
        )
        commit(labels, tables.with_partitions(data, labels), app_id="bench", version=turn)


def _times(values: pd.Series) -> Any:
    return pa.array(values.to_numpy(), pa.int64()).cast(TIME)


def _joined(
    journal: Journal, given: Given, what: str, start: datetime, end: datetime, options: Options
) -> Turn:
    seconds, reference = [], []
    for _ in range(options.rounds):
        began = time.perf_counter()
        window = journal.window(start, end, ["x"])
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        expected = _expected(given, start, end)
        reference.append(time.perf_counter() - began)
        _compare(window, expected, what)
    return Turn(
        what=what, rows=window.num_rows, seconds=median(seconds), reference=median(reference)
    )


def _streamed(journal: Journal, given: Given, what: str) -> Turn:
    began = time.perf_counter()
    found = pa.Table.from_batches(journal.batches(BEGIN, BEGIN + SPAN, ["x"]))
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    expected = _expected(given, BEGIN, BEGIN + SPAN)
    reference = time.perf_counter() - began
    _compare(found, expected, what)
    return Turn(what=what, rows=found.num_rows, seconds=seconds, reference=reference)


def _expected(given: Given, start: datetime, end: datetime) -> pd.DataFrame:
    """Straightforward: the last label of each id, by all that the log's join goes by."""
    first, last = microseconds(start), microseconds(end)
    rows = given.rows[(given.rows["time"] >= first) & (given.rows["time"] < last)]
    labels = given.labels.sort_values(["time", "received", "ordinal", "source", "value"])
    newest = labels.drop_duplicates("prediction_id", keep="last")
    joined = rows.merge(newest, on="prediction_id", how="left", suffixes=("", "_of_label"))
    return joined.sort_values(["time", "prediction_id"])


def _compare(window: Any, expected: pd.DataFrame, what: str) -> None:
    """Ends the program with an exit status where a row differs."""
    found = window.select(["_prediction_id", "_time", "_label", "_label_time"]).to_pandas()
    if not found["_time"].is_monotonic_increasing:
        raise SystemExit(f"{what}: the rows are not in the order of their times")
    found = found.sort_values(["_time", "_prediction_id"])
    times = found["_label_time"].astype("int64").where(found["_label_time"].notna())
    theirs = (
        (found["_prediction_id"], expected["prediction_id"]),
        (found["_time"].astype("int64"), expected["time"]),
        (found["_label"], expected["value"]),
        (times.astype(float), expected["time_of_label"].astype(float)),
    )
    for mine, other in theirs:
        same = len(mine) == len(other) and bool(
            ((mine.to_numpy() == other.to_numpy()) | (mine.isna() & other.isna().to_numpy())).all()
        )
        if not same:
            raise SystemExit(f"{what}: column {mine.name} is not what the reference says")


def _hours(ledger: Ledger) -> str:
    after = ledger.mature_after
    return "?" if after is None else f"{after.total_seconds() / 3600:.1f}"


def _truth(given: Given) -> float:
    """Hours until nine tenths of all first labels were known: had come, and were of the past."""
    known = given.labels[["time", "received"]].max(axis=1)
    first = known.groupby(given.labels["prediction_id"]).min()
    delays = (first - given.rows.set_index("prediction_id")["time"]).dropna()
    return float(delays.quantile(0.9)) / 3.6e9


def _without_row(given: Given) -> int:
    return len(set(given.labels["prediction_id"]) - set(given.rows["prediction_id"]))


def _table_of(turns: Sequence[Turn]) -> Table:
    return Table(
        title="Seconds",
        columns=["window", "rows", "read and joined", "pandas, all in memory"],
        rows=[
            [turn.what, f"{turn.rows:,}", f"{turn.seconds:.2f}", f"{turn.reference:.2f}"]
            for turn in turns
        ],
    )
