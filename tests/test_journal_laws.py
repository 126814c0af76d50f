"""Any sequence of doings reads back as a dictionary says it should."""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from journal_kit import (
    EVER,
    NOON,
    PIXELS,
    SteppingClock,
    at,
    ids_of,
    label,
    open_journal,
    open_writer,
    tensor_rows,
)

some_ids = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True)
operations = st.one_of(
    st.tuples(st.just("append"), some_ids, st.integers(0, 9)),
    st.tuples(st.just("label"), some_ids, st.integers(0, 3)),
    st.tuples(st.just("import"), some_ids, st.integers(0, 3)),
    st.tuples(st.just("quarantine"), some_ids, st.sampled_from(["k1", "k2"])),
    st.tuples(st.just("release"), st.just([]), st.sampled_from(["k1", "k2"])),
    st.tuples(st.sampled_from(["flush", "restart"]), st.just([]), st.none()),
)


class Model:
    """What the journal promises, in dictionaries."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[datetime, float]] = {}
        self.labels: dict[str, list[tuple[datetime, int, str]]] = {}
        self.aside: set[tuple[str, str]] = set()

    def window(self) -> list[tuple[str, datetime, float, str | None]]:
        hidden = {identifier for _, identifier in self.aside}
        found = [
            (identifier, time, value, max(self.labels.get(identifier, [(None, 0, None)]))[2])
            for identifier, (time, value) in self.rows.items()
            if identifier not in hidden
        ]
        return sorted(found, key=lambda row: (row[1], row[0]))

    def pending(self) -> int:
        return len(self.labels.keys() - self.rows.keys())


class Journalled:
    """The same doings on the real thing."""

    def __init__(self, folder: Path, durability: str) -> None:
        self.folder = folder
        self.durability = durability
        self.clock = SteppingClock()
        self.journal = open_journal(folder)
        self.writer = self.opened()

    def opened(self) -> Any:
        return open_writer(self.folder, clock=self.clock, durability=self.durability)

    def window(self) -> list[tuple[str, datetime, float, str | None]]:
        table = self.journal.window(*EVER, PIXELS)
        columns = (table[name].to_pylist() for name in ("_time", "p0", "_label"))
        found = list(zip(ids_of(table), *columns, strict=True))
        assert [row[1] for row in found] == sorted(row[1] for row in found)
        return sorted(found, key=lambda row: (row[1], row[0]))


def do(real: Journalled, model: Model, step: int, doing: tuple[str, list[str], Any]) -> None:
    what, ids, detail = doing
    if what == "append":
        now = real.clock()
        real.writer.append(tensor_rows(ids, now, value=float(detail)))
        model.rows.update(dict.fromkeys(ids, (now, float(detail))))
    elif what in ("label", "import"):
        given_labels = [label(each, f"{what}-{step}", at(detail)) for each in ids]
        if what == "label":
            real.writer.label(given_labels)
        else:
            real.journal.add_labels(given_labels, writer_id="import", now=real.clock())
        for each in given_labels:
            history = model.labels.setdefault(each.prediction_id, [])
            history.append((each.time, step, each.value))
    elif what == "quarantine":
        new = {(detail, each) for each in ids} - model.aside
        assert real.journal.quarantine(ids, "bug", key=detail, now=NOON) == len(new)
        model.aside |= new
    elif what == "release":
        held = {pair for pair in model.aside if pair[0] == detail}
        assert real.journal.release(detail, now=NOON) == len(held)
        model.aside -= held
    elif what == "flush":
        real.writer.flush()
        assert real.window() == model.window()
    else:
        real.writer.close()
        real.writer = real.opened()


@settings(
    max_examples=12,
    deadline=timedelta(seconds=60),
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would take minutes
)
@given(
    doings=st.lists(operations, min_size=3, max_size=14),
    durability=st.sampled_from(["async", "spool", "sync"]),
)
def test_any_sequence_reads_back_as_a_dictionary_says(
    doings: list[tuple[str, list[str], Any]], durability: str
) -> None:
    """Appends, late and corrected labels, quarantine and restarts, in any order."""
    with tempfile.TemporaryDirectory() as folder:
        real, model = Journalled(Path(folder), durability), Model()
        for step, doing in enumerate(doings):
            do(real, model, step, doing)
        real.writer.close()
        assert real.window() == model.window()
        assert real.journal.pending_labels() == model.pending()
        everything = real.journal.window(*EVER, PIXELS, quarantined=True)
        assert sorted(ids_of(everything)) == sorted(model.rows)
