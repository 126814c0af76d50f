"""Which kind of input a path names."""

from __future__ import annotations

from pathlib import Path

from homeostat.errors import InputError
from homeostat.scoring.csv_input import csv_files
from homeostat.scoring.parquet_input import delta_table, parquet_file, parquet_folder
from homeostat.scoring.parts import Input


def open_input(place: str, *, version: int | None = None) -> Input:
    """A .parquet or .csv file, a folder of one of them, or a Delta table by folder or URL;
    `version` is the table's. Raises InputError."""
    if "://" in place:
        return delta_table(place, version)
    path = Path(place)
    if path.is_dir():
        if (path / "_delta_log").is_dir():
            return delta_table(place, version)
        texts = sorted(path.glob("*.csv"))
        if texts and not any(path.rglob("*.parquet")):
            return csv_files(texts)
        return parquet_folder(path)
    if not path.is_file():
        raise InputError(f"{place} is neither a file nor a folder")
    match path.suffix.lower():
        case ".parquet":
            return parquet_file(path)
        case ".csv":
            return csv_files([path])
        case other:
            raise InputError(f'{place}: .parquet, .csv, a folder or a Delta table, not "{other}"')
