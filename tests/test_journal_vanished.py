"""Files of the log go while they are read, by a vacuum, retention or the log's own upkeep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from journal_kit import EVER, PIXELS, at, ids_of, open_journal, open_writer, tensor_rows, weighted

from homeostat.errors import JournalUnavailable
from homeostat.journal.delta.snapshot import Snapshot
from homeostat.journal.delta.store import DeltaStore
from homeostat.journal.delta.tables import TableRef
from homeostat.journal.encoding.sampling import shares
from homeostat.journal.reader import Journal
from homeostat.records import Task


def test_file_that_vanished_is_read_again(tmp_path: Path) -> None:
    """A reader whose files went with a vacuum reads the table as it is now."""
    writer = open_writer(tmp_path)
    for turn in range(4):
        writer.append(tensor_rows([f"r{turn}"], at(turn)))
        writer.flush()
    writer.close()
    journal = open_journal(tmp_path)
    given = journal.batches(*EVER, PIXELS, rows=1)
    first = next(given)
    folder = tmp_path / "journal/digits/predictions"
    table = DeltaTable(folder)
    table.optimize.compact()
    table.vacuum(0, dry_run=False, enforce_retention_duration=False)
    rest = list(given)
    found = [each for batch in (first, *rest) for each in batch["_prediction_id"].to_pylist()]
    assert found == ["r0", "r1", "r2", "r3"]
    for file in DeltaTable(folder).file_uris():
        Path(file).unlink()
    with pytest.raises(JournalUnavailable):
        journal.window(*EVER, PIXELS)


def test_rows_stand_for_as_many_after_a_file_vanished(tmp_path: Path) -> None:
    """Batches that go on in the table as it is now are thinned as those given before were."""
    ids = [f"row-{n}" for n in range(40)]
    rare = [each for each, u in zip(ids, shares(ids), strict=True) if u < 0.5]
    weighted(tmp_path, rare, [2.0] * len(rare), 0)
    for second in range(1, 5):
        names = [f"{second}-{n}" for n in range(40)]
        weighted(tmp_path, names, [1.0] * len(names), second)
    journal = open_journal(tmp_path)
    whole = journal.window(*EVER, ["x"])
    given = journal.batches(*EVER, ["x"], rows=5)
    first = next(given)
    table = DeltaTable(tmp_path / "journal/digits/predictions")
    table.optimize.compact()
    table.vacuum(0, dry_run=False, enforce_retention_duration=False)
    later = [each for each, u in zip(ids, shares(ids), strict=True) if u < 0.25]
    weighted(tmp_path, [f"{each}-later" for each in later], [4.0] * len(later), 4.5)
    assert ids_of(pa.Table.from_batches([first, *given])) == ids_of(whole)


def test_files_that_vanish_time_and_again_are_read_in_the_end(tmp_path: Path) -> None:
    """As under a slow reader of a log whose tables are tidied one after the other."""
    writer = open_writer(tmp_path)
    folder = tmp_path / "journal/digits/predictions"
    ids: list[str] = []

    def log_one() -> None:
        ids.append(f"r{len(ids)}")
        writer.append(tensor_rows(ids[-1:], at(len(ids))))
        writer.flush()

    class Tidied(DeltaStore):
        """A store whose files are replaced, three times, just after a reader looked which there
        are."""

        left = 3

        def open(self, table: TableRef) -> Snapshot | None:
            found = super().open(table)
            if self.left and table.url == str(folder):
                self.left -= 1
                log_one()
                there = DeltaTable(folder)
                there.optimize.compact()
                there.vacuum(0, dry_run=False, enforce_retention_duration=False)
            return found

    log_one()
    log_one()
    ways: list[Callable[[Journal], Any]] = [
        lambda journal: journal.window(*EVER, PIXELS),
        lambda journal: pa.Table.from_batches(journal.batches(*EVER, PIXELS)),
    ]
    for read in ways:
        store = Tidied()
        journal = Journal(str(tmp_path / "journal"), "digits", Task.CLASSIFICATION, store=store)
        assert ids_of(read(journal)) == ids
        assert store.left == 0
    writer.close()


def test_checkpoint_that_vanished_is_looked_for_again(tmp_path: Path) -> None:
    """The log's upkeep replaces a checkpoint while a reader opens the table: it opens it again."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a"]))
    writer.close()
    log = tmp_path / "journal/digits/predictions/_delta_log"
    DeltaTable(log.parent).create_checkpoint()
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    aside = checkpoint.rename(tmp_path / "aside")

    class Replaced(DeltaStore):
        """A store whose newer checkpoint comes just after the first reader looked for it."""

        def open(self, table: TableRef) -> Snapshot | None:
            try:
                return super().open(table)
            finally:
                if aside.exists():
                    aside.rename(checkpoint)

    journal = Journal(str(tmp_path / "journal"), "digits", Task.CLASSIFICATION, store=Replaced())
    assert ids_of(journal.window(*EVER, PIXELS)) == ["a"]
    checkpoint.rename(aside)
    assert sum(batch.num_rows for batch in journal.batches(*EVER, PIXELS)) == 1
    checkpoint.unlink()
    with pytest.raises(JournalUnavailable, match=r"(?i)checkpoint"):
        open_journal(tmp_path).window(*EVER, PIXELS)


@pytest.mark.parametrize("broken", ["file", "loop"])
def test_folder_that_lets_nobody_in_is_no_empty_log(tmp_path: Path, broken: str) -> None:
    """What cannot be looked into is away; only what is not there has no rows yet."""
    place = tmp_path / "journal"
    assert open_journal(tmp_path).newest_time() is None
    if broken == "file":
        place.write_text("no folder")
    else:
        place.symlink_to(place)
    journal = open_journal(tmp_path)
    for ask in (journal.newest_time, journal.pending_labels, lambda: journal.newest(1, ["x"])):
        with pytest.raises(JournalUnavailable, match="does not answer"):
            ask()
