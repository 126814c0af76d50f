"""Files of labels, and their import into a log."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from journal_kit import EVER, PIXELS, at, ids_of, open_journal, open_writer, tensor_rows

from homeostat.journal.delta.storage import filesystem
from homeostat.journal.importing.label_rows import Layout
from homeostat.journal.importing.labels_import import Import, Imported
from homeostat.records import Task

NOW = at(90_000)
ROWS: list[dict[str, Any]] = [
    {"id": "a", "value": 3, "source": "review", "time": "2026-11-20T13:00:00+00:00"},
    {"id": "b", "value": "cat, or dog", "source": None, "time": "2026-11-20T15:00:00+02:00"},
    {"id": "a", "value": 4.0, "source": "second look", "time": "2026-11-20T14:00:00Z"},
    {"id": "c", "value": True, "source": "ü", "time": None},
]


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_tsv_gz(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with gzip.open(path, "wt", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


def write_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Typed: values are text here, times are times."""
    frame = pd.DataFrame(rows).assign(value=[str(row["value"]).lower() for row in rows])
    frame["value"] = frame["value"].replace("4.0", "4")
    frame["time"] = pd.to_datetime(frame["time"], utc=True, format="ISO8601")
    frame.to_parquet(path, index=False)


def import_(
    folder: Path,
    file: Path,
    layout: Layout | None = None,
    *,
    task: Task = Task.CLASSIFICATION,
    told: list[tuple[int, str, str]] | None = None,
    now: datetime = NOW,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Imported:
    def tell(*what: Any) -> None:
        if told is not None:
            told.append(what)

    return Import(
        url=str(folder / "journal"),
        model="digits",
        task=task,
        file=file,
        layout=layout or Layout(),
        tell=tell,
        progress=progress,
    ).run(now)


def predicted(folder: Path, ids: Sequence[str]) -> None:
    writer = open_writer(folder)
    writer.append(tensor_rows(ids))
    writer.close()


def labels_of(folder: Path) -> dict[str, str | None]:
    found = open_journal(folder).window(*EVER, PIXELS)
    return dict(zip(ids_of(found), found["_label"].to_pylist(), strict=True))


def stored(folder: Path) -> pd.DataFrame:
    """Every row of the labels table, as any engine reads it."""
    from deltalake import DeltaTable

    url = str(folder / "journal" / "digits" / "labels")
    dataset = DeltaTable(url).to_pyarrow_dataset(filesystem=filesystem(url))
    rows: pd.DataFrame = dataset.to_table().to_pandas()
    return rows
