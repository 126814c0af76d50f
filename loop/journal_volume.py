"""How much disk the prediction log will take: measured where it can be, else estimated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from homeostat import columns
from homeostat.errors import HomeostatError
from homeostat.journal.delta import tables
from homeostat.journal.delta.files import files_in
from homeostat.journal.keeping.stats import Day, by_day, last_whole_day
from homeostat.journal.reader import Journal
from homeostat.records import Task
from homeostat.settings import Settings
from homeostat.words import format_duration
from loop.sizes import readable

EXAMPLE = 100  # rows a second
ENOUGH = 1000  # rows of the log that tell what one takes
DAY = timedelta(days=1)

# Bytes of a row in a table: the id hardly shrinks, all else that every row has does.
_KNOWN, _NUMBER, _ELEMENT, _DESCRIPTORS = 45, 8, 4, 24
_EXAMPLE_FEATURES = 32


def volume_line(settings: Settings, now: datetime) -> str:
    """One sentence for people; never raises for a log that cannot be read."""
    model = settings.model
    try:
        table = tables.predictions(settings.journal_path, model.name, model.task)
        days = by_day(files_in(table))
        whole = last_whole_day(days, now)
        yesterday = (now - DAY).astimezone(UTC).date().isoformat()
        if whole is not None and whole.rows and whole.day >= yesterday:
            return _measured(whole, settings)
        return _expected(days, settings)
    except HomeostatError as problem:
        return f"The log's size is not known: {problem}"


def _measured(day: Day, settings: Settings) -> str:
    text = f"The log took {readable(day.bytes)} for {day.rows:,} rows on {day.day}"
    keep, limit = settings.journal.keep, settings.journal.keep_bytes
    if keep > timedelta(0):
        text += f"; at that, {readable(day.bytes * (keep / DAY))} in {format_duration(keep)}"
    return f"{text}{_at_most(limit)}."


def _expected(days: tuple[Day, ...], settings: Settings) -> str:
    rows, size = sum(day.rows for day in days), sum(day.bytes for day in days)
    journal = settings.journal
    if rows >= ENOUGH:
        each, how = size / rows, "measured"
    else:
        width = _embedding(settings) if rows else None
        each, how = _row_bytes(settings) + (width or 0) * _ELEMENT, "estimated"
        if settings.serving.embedding and width is None:
            how += f", and {_ELEMENT} more for each element of the embedding"
    a_day = each * EXAMPLE * journal.sample * DAY.total_seconds()
    sampled = f", of which {journal.sample:.3g} are logged" if journal.sample < 1 else ""
    return (
        f"The log takes about {each:.0f} bytes a row ({how}): {readable(a_day)} a day at "
        f"{EXAMPLE} rows/s{sampled}{_at_most(journal.keep_bytes)}."
    )


def _at_most(limit: int | None) -> str:
    return "" if limit is None else f", {readable(limit)} at most"


def _row_bytes(settings: Settings) -> float:
    inputs: float = 0
    if settings.journal.inputs == "full":
        logged = _features(settings) - len(settings.journal.redact)
        inputs = max(logged, 0) * _NUMBER
    elif settings.journal.inputs == "descriptors":
        inputs = _DESCRIPTORS
    classes = len(settings.model.classes) or 2
    said = classes * _ELEMENT if settings.model.task is Task.CLASSIFICATION else _NUMBER
    return _KNOWN + inputs + said


def _embedding(settings: Settings) -> int | None:
    """How many elements the newest row's has: no signature tells, nor a version before it ran."""
    model = settings.model
    journal = Journal(settings.journal_path, model.name, model.task)
    (found,) = journal.newest(1, (), embedding=True)[columns.EMBEDDING].to_pylist() or [None]
    return None if found is None else len(found)


def _features(settings: Settings) -> int:
    """As many as the training data has, unless the settings name them."""
    if settings.model.features:
        return len(settings.model.features)
    names = _columns(settings.model.training_data)
    return len(names) - (settings.model.target in names) if names else _EXAMPLE_FEATURES


def _columns(path: Path | None) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path is None:
            return []
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8", errors="replace") as file:
                return [name.strip().strip('"') for name in file.readline().split(",")]
        names: list[str] = pq.read_schema(path).names
        return names
    except (OSError, pa.ArrowInvalid):
        return []
