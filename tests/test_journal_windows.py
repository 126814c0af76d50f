"""Windows by role, slice, weight and count; the rows asked for, and no file read in vain."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from journal_kit import (
    EVER,
    NOON,
    PIXELS,
    Columns,
    at,
    column_rows,
    ids_of,
    label,
    open_journal,
    open_writer,
    tensor_rows,
    weighted,
)

from homeostat.errors import InputError, JournalUnavailable
from homeostat.journal.delta.commits import commit
from homeostat.journal.delta.tables import predictions, with_partitions
from homeostat.journal.encoding.sampling import shares
from homeostat.journal.reader import Journal
from homeostat.journal.reading.request import Asked
from homeostat.records import Task


def columns_of(window: Any, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(window[name].to_pylist() for name in names), strict=True))


def test_shadow_rows_are_left_out_and_collide_with_nobody(tmp_path: Path) -> None:
    """A shadow's answers share ids with the champion's: apart unless asked for, and then both."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a", "b"], at(0)))
    writer.append(tensor_rows(["a", "b"], at(1), version="2", role="shadow"))
    writer.append(tensor_rows(["a"], at(2), version="3", role="shadow"))
    writer.append(tensor_rows(["c"], at(3), role="challenger"))
    writer.close()
    journal = open_journal(tmp_path)
    assert ids_of(journal.window(*EVER, PIXELS)) == ["a", "b", "c"]
    shadows = journal.window(*EVER, PIXELS, roles=["shadow"])
    assert columns_of(shadows, "_prediction_id", "_version") == [("a", "2"), ("b", "2"), ("a", "3")]
    both = journal.window(*EVER, PIXELS, roles=["champion", "shadow"])
    assert both["_role"].to_pylist() == ["champion"] * 2 + ["shadow"] * 3
    assert ids_of(journal.newest(1, PIXELS, roles=["champion"])) == ["b"]


def test_slice_by_numbers_texts_and_nulls(tmp_path: Path) -> None:
    """where takes the rows with the allowed values of each feature, also of features not read."""
    writer = open_writer(tmp_path)
    columns: Columns = {"shop": ["Köln", "Bonn", None, "Köln"], "size": [1, 2, 3, None]}
    writer.append(column_rows(["a", "b", "c", "d"], columns))
    writer.close()
    journal = open_journal(tmp_path)

    def found(**where: list[Any]) -> list[str]:
        return ids_of(journal.window(*EVER, ["size"], where=where))

    assert found(shop=["Köln"]) == ["a", "d"]
    assert found(shop=["Köln", None]) == ["a", "c", "d"]
    assert found(size=[1, 3.0]) == ["a", "c"]
    assert found(size=[None], shop=["Köln"]) == ["d"]
    assert found(colour=["red"]) == []
    assert found(colour=[None]) == ["a", "b", "c", "d"]
    assert ids_of(journal.window(*EVER, ["size"], where={"shop": ["Köln"]}, limit=1)) == ["d"]
    with pytest.raises(InputError, match="size"):
        found(size=["tall"])


def test_slice_of_a_tensor_and_of_columns_beside_it(tmp_path: Path) -> None:
    """A tensor's element is sliced by its name; a table may hold tensors and columns at once."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a"], at(0), value=0.1))
    writer.append(tensor_rows(["b"], at(1), value=2.0))
    writer.append(column_rows(["c"], {"p0": [2.0], "shop": ["Bonn"]}, at(2)))
    writer.close()
    journal = open_journal(tmp_path)
    assert ids_of(journal.window(*EVER, PIXELS, where={"p0": [0.1]})) == ["a"]
    assert ids_of(journal.window(*EVER, PIXELS, where={"p0": [2]})) == ["b", "c"]
    assert ids_of(journal.window(*EVER, PIXELS, where={"shop": ["Bonn"]})) == ["c"]
    assert ids_of(journal.newest(1, PIXELS, where={"p0": [0.1]})) == ["a"]


def test_rows_of_several_rates_are_thinned_to_the_lowest(tmp_path: Path) -> None:
    """Every row of a window stands for equally many, the same rows whoever asks."""
    ids = [f"row-{n}" for n in range(400)]
    drawn = shares(ids)
    fourth = [each for each, u in zip(ids, drawn, strict=True) if u < 0.25]
    weighted(tmp_path, ids, [1.0] * len(ids), 0)
    journal = open_journal(tmp_path)
    assert len(ids_of(journal.window(*EVER, ["x"]))) == 400
    other = [f"later-{n}" for n in range(400)]
    later = [each for each, u in zip(other, shares(other), strict=True) if u < 0.25]
    weighted(tmp_path, later, [4.0] * len(later), 10)
    assert ids_of(journal.window(*EVER, ["x"])) == fourth + later
    assert len(ids_of(journal.window(at(0), at(5), ["x"]))) == 400
    assert ids_of(journal.newest(len(later) + 3, ["x"])) == fourth[-3:] + later
    every = journal.window(*EVER, ["x"], weights=True)
    assert every["_weight"].to_pylist() == [1.0] * 400 + [4.0] * len(later)


def test_tables_from_before_a_column_are_read(tmp_path: Path) -> None:
    """Columns that an older table lacks read as null, weights as one."""
    table = predictions(str(tmp_path / "journal"), "digits", Task.CLASSIFICATION)
    names = [name for name in table.schema.names if name not in ("key", "descriptors", "weight")]
    old = replace(table, schema=pa.schema([table.schema.field(name) for name in names]))
    rows = pa.table(
        {
            "prediction_id": ["a"],
            "time": pa.array([NOON], pa.timestamp("us", "UTC")),
            "version": ["1"],
            "role": ["champion"],
            "prediction": ["7"],
            "input_x": [1.5],
        }
    )
    commit(old, with_partitions(rows, old), app_id="old", version=1)
    assert "key" not in DeltaTable(table.url).schema().to_arrow().names
    window = open_journal(tmp_path).window(
        *EVER, ["x"], also=["_key", "_descriptors"], weights=True
    )
    assert columns_of(window, "x", "_key", "_descriptors", "_weight") == [(1.5, None, None, 1.0)]
    assert next(open_journal(tmp_path).batches(*EVER, ["x"])).num_rows == 1


def test_window_reads_no_file_outside_it(tmp_path: Path) -> None:
    """Files of other hours and labels of other ids are never opened."""
    writer = open_writer(tmp_path)
    for hour in range(6):
        writer.append(tensor_rows([f"h{hour}-{n}" for n in range(3)], at(3600 * hour)))
        writer.label([label(f"h{hour}-0", "7", at(3600 * hour))])
        writer.flush()
    writer.close()
    wanted = "h3-"
    for name in ("predictions", "labels"):
        folder = tmp_path / "journal/digits" / name
        for file in DeltaTable(folder).file_uris():
            path = folder / file
            if wanted.encode() not in path.read_bytes():
                path.write_bytes(b"not Parquet")
    journal = open_journal(tmp_path)
    window = journal.window(at(3 * 3600), at(4 * 3600), PIXELS)
    assert window["_label"].to_pylist() == ["7", None, None]
    assert sum(batch.num_rows for batch in journal.batches(at(3 * 3600), at(4 * 3600), PIXELS)) == 3
    with pytest.raises(JournalUnavailable, match="damaged"):
        journal.window(*EVER, PIXELS)


def test_reading_features_reads_no_embedding(tmp_path: Path) -> None:
    """Where the embeddings cannot be read, everything else still can."""
    writer = open_writer(tmp_path)
    embedding = np.random.default_rng(1).normal(size=(500, 16)).astype(np.float32)
    writer.append(tensor_rows([f"row-{n}" for n in range(500)], embedding=embedding))
    writer.close()
    folder = tmp_path / "journal/digits/predictions"
    (file,) = DeltaTable(folder).file_uris()
    group = pq.read_metadata(file).row_group(0)
    chunks = [group.column(at) for at in range(group.num_columns)]
    spoilt = next(each for each in chunks if each.path_in_schema.startswith("embedding"))
    with Path(file).open("r+b") as raw:
        raw.seek(spoilt.data_page_offset)
        raw.write(b"\xff" * spoilt.total_compressed_size)
    journal = open_journal(tmp_path)
    assert journal.window(*EVER, PIXELS).num_rows == 500
    assert sum(batch.num_rows for batch in journal.batches(*EVER, PIXELS)) == 500
    assert journal.newest(3, PIXELS).num_rows == 3
    with pytest.raises(JournalUnavailable):
        journal.window(*EVER, PIXELS, embedding=True)


def test_times_without_a_zone_are_refused(tmp_path: Path) -> None:
    """They would be taken for one zone or another: each method says which argument lacks it."""
    journal, naive = open_journal(tmp_path), NOON.replace(tzinfo=None)
    asking: dict[str, list[Callable[[], object]]] = {
        "start": [
            lambda: journal.window(naive, NOON, ["x"]),
            lambda: journal.batches(naive, NOON, ["x"]),
            lambda: journal.outcomes("revenue", naive, NOON),
            lambda: journal.quarantine_range(naive, NOON, "bug", key="k", now=NOON),
        ],
        "end": [lambda: journal.window(NOON, naive, ["x"])],
        "before": [lambda: journal.newest(1, ["x"], before=naive)],
        "since": [
            lambda: journal.pending_labels(since=naive),
            lambda: journal.oldest_labelled(naive),
        ],
        "now": [
            lambda: journal.quarantine(["a"], "bug", key="k", now=naive),
            lambda: journal.release("k", now=naive),
            lambda: journal.ledger(naive),
            lambda: journal.add_labels([label("a", "1")], writer_id="import", now=naive),
        ],
    }
    for name, calls in asking.items():
        for call in calls:
            with pytest.raises(InputError, match=f"{name} = 2026.* no time zone"):
                call()


def batched(journal: Journal, *arguments: Any, rows: int, **more: Any) -> Any:
    found = list(journal.batches(*arguments, rows=rows, **more))
    assert all(0 < batch.num_rows <= rows for batch in found)
    return pa.Table.from_batches(found)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_batches_are_the_window_cut_in_pieces(tmp_path: Path, rows: int) -> None:
    """The same rows, columns, types and order, with files that overlap, doubled ids, labels,
    quarantine and thinning."""
    random = np.random.default_rng(3)
    writers = [open_writer(tmp_path, writer_id=name) for name in ("one", "two")]
    for turn in range(10):
        for writer in writers:
            moments = random.integers(turn * 10, turn * 10 + 15, 4)
            for moment in moments.tolist():
                name = f"id-{random.integers(0, 60)}"
                writer.append(tensor_rows([name, f"{name}-b"], at(moment), value=float(moment)))
                if moment % 3 == 0:
                    writer.label([label(name, str(moment), at(moment))])
            writer.flush()
    for writer in writers:
        writer.close()
    weighted(tmp_path, [f"w{n}" for n in range(30)], [2.0] * 30, 50)
    journal = open_journal(tmp_path)
    journal.quarantine(["id-7", "id-8"], "bug", key="k", now=NOON)
    journal.quarantine_range(at(20), at(24), "outage", key="k", now=NOON)
    for given in (Asked(), Asked(embedding=True, weights=True, quarantined=True)):
        window = journal.window(*EVER, PIXELS, **given)
        assert batched(journal, *EVER, PIXELS, rows=rows, **given).equals(window)
    part = (at(13), at(61))
    assert batched(journal, *part, PIXELS, rows=rows).equals(journal.window(*part, PIXELS))


def test_batches_of_nothing_are_none(tmp_path: Path) -> None:
    """An empty log and an empty window have no batches."""
    journal = open_journal(tmp_path)
    assert list(journal.batches(*EVER, ["x"])) == []
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a"]))
    writer.close()
    assert list(journal.batches(at(100), at(100) + timedelta(days=1), PIXELS)) == []


def test_labels_of_callers_ids_are_read_once_for_many_batches(tmp_path: Path) -> None:
    """Ids that say nothing of their time: labels are not looked through for each batch, so that
    the later ones have theirs though the table is gone."""
    writer = open_writer(tmp_path)
    ids = [f"{n * 7919 % 600:03}" for n in range(600)]
    for first in range(0, 600, 50):
        writer.append(tensor_rows(ids[first : first + 50], at(first)))
        writer.flush()
    writer.label([label(each, each, at(700)) for each in ids if each != ids[3]])
    writer.close()
    journal = open_journal(tmp_path)
    whole = journal.window(*EVER, PIXELS)
    batches = journal.batches(*EVER, PIXELS, rows=50)
    first_batch = next(batches)
    shutil.rmtree(tmp_path / "journal/digits/labels")
    found = pa.Table.from_batches([first_batch, *batches])
    assert found.to_pylist() == whole.to_pylist()
    assert found["_label"].null_count == 1
