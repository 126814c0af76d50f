"""Any sequence of doings reads back as a simple model says it should."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from journal_kit import EVER, NOON, PIXELS, at, label, tensor_rows
from journal_subjects import DeltaSubject, MemorySubject, Subject

Doing = tuple[Any, ...]

some_ids = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True)
places = st.integers(0, 12)
keys = st.sampled_from(["k1", "k2"])
owners = st.sampled_from(["ann", "bob", None])
roles = st.sampled_from(["champion", "champion", "challenger", "shadow"])

doings = st.one_of(
    st.tuples(st.just("append"), some_ids, st.integers(0, 9), roles, owners),
    st.tuples(st.just("append"), some_ids, st.integers(0, 9), roles, owners),
    st.tuples(st.just("label"), some_ids, st.integers(0, 3)),
    st.tuples(st.just("correct"), some_ids),
    st.tuples(st.just("import"), some_ids, st.integers(0, 3)),
    st.tuples(st.just("quarantine"), some_ids, keys),
    st.tuples(st.just("range"), places, st.integers(1, 6), st.sampled_from(["1", None]), keys),
    st.tuples(st.just("release"), keys),
    st.tuples(st.just("forget"), some_ids, st.sampled_from([["ann"], []])),
    st.tuples(st.sampled_from(["look", "restart", "crash", "crash", "compact"])),
)


@dataclass(frozen=True)
class Row:
    time: datetime
    identifier: str
    value: float
    role: str
    version: str
    owner: str | None

    @property
    def same(self) -> tuple[str, str]:
        """What makes two rows the same."""
        return self.identifier, self.version if self.role == "shadow" else ""


Range = tuple[datetime, datetime, str | None]


@dataclass
class Model:
    """What the journal promises, in lists and dictionaries."""

    rows: list[Row] = field(default_factory=list)  # in time order
    labels: dict[str, list[tuple[datetime, int, str]]] = field(default_factory=dict)
    aside: set[tuple[str, str | Range]] = field(default_factory=set)

    def window(self, wanted: Callable[[Row], bool]) -> list[tuple[Any, ...]]:
        newest = {row.same: row for row in self.rows if wanted(row)}
        return sorted(
            (row.time, row.identifier, row.value, row.role, row.owner, self.label_of(row))
            for row in newest.values()
            if not self.is_aside(row)
        )

    def label_of(self, row: Row) -> str | None:
        return max(self.labels.get(row.identifier, [(NOON, 0, None)]))[2]

    def is_aside(self, row: Row) -> bool:
        return any(
            what == row.identifier
            if isinstance(what, str)
            else what[0] <= row.time < what[1] and what[2] in (None, row.version)
            for _, what in self.aside
        )

    def pending(self) -> int:
        return len(self.labels.keys() - {row.identifier for row in self.rows})

    def forget(self, ids: list[str], owners: list[str]) -> None:
        gone = {row.identifier for row in self.rows if row.owner in owners} | set(ids)
        self.rows = [r for r in self.rows if r.owner not in owners and r.identifier not in ids]
        self.labels = {each: given for each, given in self.labels.items() if each not in gone}
        self.aside = {pair for pair in self.aside if pair[1] not in gone}


def do(real: Subject, model: Model, step: int, doing: Doing) -> None:
    what, now = doing[0], at(step)
    if what == "append":
        append(real, model, step, *doing[1:])
    elif what in ("label", "correct", "import"):
        give(real, model, step, *doing)
    elif what == "quarantine":
        pairs = {(doing[2], each) for each in doing[1]}
        assert real.journal.quarantine(doing[1], "bug", key=doing[2], now=now) == len(
            pairs - model.aside
        )
        model.aside |= pairs
    elif what == "range":
        _, start, length, version, key = doing
        range_: Range = (at(start), at(start + length), version)
        added = real.journal.quarantine_range(
            range_[0], range_[1], "outage", key=key, now=now, version=version
        )
        assert added == ((key, range_) not in model.aside)
        model.aside.add((key, range_))
    elif what == "release":
        held = {pair for pair in model.aside if pair[0] == doing[1]}
        assert real.journal.release(doing[1], now=now) == len(held)
        model.aside -= held
    elif what == "forget":
        real.flush()  # what is in a spool is forgotten when its process ends
        real.forget(doing[1], doing[2])
        model.forget(doing[1], doing[2])
    elif what == "look":
        real.flush()
        compare(real, model)
    elif what == "compact":
        real.compact(now)
    elif what == "restart":
        real.restart()
    else:
        real.crash()


def append(
    real: Subject, model: Model, step: int, ids: list[str], value: int, role: str, owner: str | None
) -> None:
    version = str(1 + step % 2)
    keys = [owner] * len(ids)
    rows = tensor_rows(ids, at(step), version=version, value=float(value), role=role, keys=keys)
    real.append(rows, at(step))
    model.rows += [Row(at(step), each, float(value), role, version, owner) for each in ids]


def give(
    real: Subject, model: Model, step: int, what: str, ids: list[str], second: int = 3600
) -> None:
    """A correction is newer than all labels; the others come in any order of their times."""
    moment = at(second + step / 1000 if what == "correct" else second)
    labels = [label(each, f"{what}-{step}", moment) for each in ids]
    if what == "import":
        real.journal.add_labels(labels, writer_id="import", now=at(step))
    else:
        real.label(labels, at(step))
    for each in labels:
        history = model.labels.setdefault(each.prediction_id, [])
        history.append((each.time, step, each.value))


def read(table: Any) -> list[tuple[Any, ...]]:
    names = ("_time", "_prediction_id", "p0", "_role", "_key", "_label")
    columns = [table[name].to_pylist() for name in names]
    assert columns[0] == sorted(columns[0])
    return sorted(zip(*columns, strict=True), key=lambda row: (row[0], row[1]))


def compare(real: Subject, model: Model) -> None:
    journal, roles = real.journal, ["champion", "challenger"]
    asked: dict[str, Any] = {"roles": roles, "also": ["_key"]}
    expected = model.window(lambda row: row.role in roles)
    window = journal.window(*EVER, PIXELS, **asked)
    assert read(window) == expected
    batches = list(journal.batches(*EVER, PIXELS, rows=2, **asked))
    assert pa.Table.from_batches(batches, window.schema).equals(window)
    shadows = journal.window(*EVER, PIXELS, roles=["shadow"], also=["_key"])
    assert read(shadows) == model.window(lambda row: row.role == "shadow")
    newest = journal.newest(3, PIXELS, **asked)
    assert len(newest) == min(3, len(expected))
    assert set(read(newest)) <= set(expected)
    first = model.window(lambda row: row.version == "1" and row.role != "shadow")
    assert journal.window(*EVER, PIXELS, versions=["1"]).num_rows == len(first)
    assert journal.newest_time() == max((row.time for row in model.rows), default=None)
    assert journal.pending_labels() == model.pending()


def obeys(real: Subject, sequence: list[Doing]) -> None:
    model = Model()
    try:
        for step, doing in enumerate(sequence):
            do(real, model, step, doing)
        real.flush()
        compare(real, model)
    finally:
        real.close()


LAWS = settings(
    deadline=timedelta(seconds=120),
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would take minutes
)
some_doings = st.lists(doings, min_size=4, max_size=14)


@settings(LAWS, max_examples=10)
@given(sequence=some_doings, durability=st.sampled_from(["async", "spool", "sync"]))
def test_any_sequence_on_delta_tables(sequence: list[Doing], durability: str) -> None:
    """Appends, late and corrected labels, quarantine, forgetting, compaction, kill -9, restarts."""
    with tempfile.TemporaryDirectory() as folder:
        obeys(DeltaSubject(Path(folder), durability, NOON), sequence)


@settings(LAWS, max_examples=60)
@given(sequence=some_doings)
def test_any_sequence_in_memory(sequence: list[Doing]) -> None:
    """The twin obeys the same laws."""
    obeys(MemorySubject(NOON), sequence)
